"""generate_qa_embedding_pairs: asks each node once, ever, and loses nothing that is in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core", reason="needs llama-index-core: pip install 'vectune[llama-index]'")

from llama_server import THINGS, ServerLLM, nodes_about, serving

from vectune.errors import UsageError
from vectune.integrations.llama_index import EmbeddingQAFinetuneDataset, generate_qa_embedding_pairs


def test_a_failed_node_is_asked_again_and_nothing_else(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:4]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        server.fail("500")
        with pytest.warns(UserWarning, match="1 nodes have no questions"):
            first = generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False, retry_limit=1)
        assert len(first.corpus) == 11 and server.count() == 12
        second = generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
        assert server.count() == 13
        assert list(second.corpus) == [node.node_id for node in nodes]
        assert [second.queries[q] for q, docs in second.relevant_docs.items() if docs == ["apple-open"]] == [
            "how do I open a apple?",  # and not "Here are the questions:"
            "how do I sell a apple?",
        ]
        (tmp_path / "qa.json").unlink()  # the store alone is enough, also in another order and with more nodes
        more = [*reversed(nodes), *nodes_about([THINGS[5]])]
        third = generate_qa_embedding_pairs(more, llm, output_path=out, verbose=False)
        assert server.count() == 16 and set(second.queries.items()) <= set(third.queries.items())
        assert EmbeddingQAFinetuneDataset.from_json(out) == third


def test_another_prompt_or_model_asks_again(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:1]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
        template = 'Ask {num_questions_per_chunk} of {context_str} as {"q": "..."}'
        generate_qa_embedding_pairs(nodes, llm, template, output_path=out, verbose=False)
        assert server.count() == 6
        assert '{"q": "..."}' in server.asked[-1].body["messages"][0]["content"]
        other = ServerLLM(base_url=server.base_url, model="other")
        generate_qa_embedding_pairs(nodes, other, template, output_path=out, verbose=False)
        assert server.count() == 9


def test_a_template_without_a_place_for_the_text_is_refused(tmp_path: Path) -> None:
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        with pytest.raises(UsageError, match=r"holds no \{context_str\}"):
            generate_qa_embedding_pairs(nodes_about(THINGS[:2]), llm, "Ask {num_questions_per_chunk} of {context}.")
        assert server.count() == 0


def test_concurrent_within_bounds(tmp_path: Path) -> None:
    with serving() as server:
        server.delay = 0.2
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(
            nodes_about(THINGS[:4]), llm, output_path=str(tmp_path / "a.json"), verbose=False, concurrency=4
        )
        assert 2 <= server.most_in_flight <= 4


def test_fail_is_a_runtime_error_and_keeps_what_came(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:2]), str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(nodes[:3], llm, output_path=out, verbose=False)
        server.fail("500", times=50)
        with pytest.raises(RuntimeError, match="after 2 tries"):
            generate_qa_embedding_pairs(
                nodes, llm, output_path=out, verbose=False, on_failure="fail", retry_limit=2, concurrency=1
            )
    assert len(EmbeddingQAFinetuneDataset.from_json(out).corpus) == 3
    with pytest.raises(UsageError, match="on_failure"):
        generate_qa_embedding_pairs(nodes, llm, on_failure="explode")


def test_goes_on_from_a_file_of_llama_index(tmp_path: Path) -> None:
    """Its ids are random; a node that it skipped is asked, although its corpus has as many nodes as come before it."""
    nodes, out = nodes_about(THINGS[:1]), tmp_path / "qa.json"
    done = EmbeddingQAFinetuneDataset(
        queries={"1b4e28ba-2fa1-11d2-883f-0016d3cca427": "a question"},
        corpus={nodes[1].node_id: nodes[1].text},
        relevant_docs={"1b4e28ba-2fa1-11d2-883f-0016d3cca427": [nodes[1].node_id]},
    )
    done.save_json(str(out))
    with serving() as server, pytest.warns(UserWarning, match="1 of 3 nodes have fewer than 2"):
        llm = ServerLLM(base_url=server.base_url)
        found = generate_qa_embedding_pairs(nodes, llm, output_path=str(out), verbose=False)
        assert server.count() == 2
    assert list(found.corpus) == [node.node_id for node in nodes]
    assert "a question" in found.queries.values() and not (tmp_path / "qa.old.json").exists()


def test_other_nodes_in_the_file_are_not_mixed_in(tmp_path: Path) -> None:
    """Theirs merges, so that a validation set made at the default path holds the training set."""
    out = str(tmp_path / "qa.json")
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        train = generate_qa_embedding_pairs(nodes_about(THINGS[:1]), llm, output_path=out, verbose=False)
        val = generate_qa_embedding_pairs(nodes_about(THINGS[1:2]), llm, output_path=out, verbose=False)
    assert not train.corpus.keys() & val.corpus.keys()
    assert EmbeddingQAFinetuneDataset.from_json(out) == val
    assert EmbeddingQAFinetuneDataset.from_json(str(tmp_path / "qa.old.json")) == train


def test_what_a_person_changed_in_the_file_stays(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:1]), tmp_path / "qa.json"
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        generate_qa_embedding_pairs(nodes[:2], llm, output_path=str(out), verbose=False)
        told = json.loads(out.read_text())
        first = next(iter(told["queries"]))
        told["queries"][first] = "my own words"
        out.write_text(json.dumps(told))
        found = generate_qa_embedding_pairs(nodes, llm, output_path=str(out), verbose=False)
        assert server.count() == 3 and found.queries[first] == "my own words"
        assert not (tmp_path / "qa.old.json").exists()
        told = json.loads(out.read_text())
        told["queries"]["mine"], told["relevant_docs"]["mine"] = "one more of mine", [nodes[0].node_id]
        out.write_text(json.dumps(told))
        generate_qa_embedding_pairs(nodes, llm, output_path=str(out), verbose=False)
        kept = json.loads(out.read_text())["queries"]
        assert kept[first] == "my own words" and kept["mine"] == "one more of mine"
        told = json.loads(out.read_text())
        told["relevant_docs"][first].append(nodes[1].node_id)  # two nodes: the file alone can say so
        out.write_text(json.dumps(told))
        generate_qa_embedding_pairs(nodes, llm, output_path=str(out), verbose=False)
    assert json.loads(out.read_text()) == told and not (tmp_path / "qa.old.json").exists()


def test_a_file_that_was_moved_aside_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "qa.json"
    with serving() as server:
        llm = ServerLLM(base_url=server.base_url)
        made = [generate_qa_embedding_pairs(nodes_about([thing]), llm, output_path=str(out)) for thing in THINGS[:3]]
    names = ("qa.old.json", "qa.old-2.json", "qa.json")
    assert [EmbeddingQAFinetuneDataset.from_json(str(tmp_path / name)) for name in names] == made
    assert "qa.old-2.json" in capsys.readouterr().err


def test_two_llms_of_ones_own_do_not_share_answers(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:1]), str(tmp_path / "qa.json")
    with serving() as server:
        for kind in (ServerLLM, type("Other", (ServerLLM,), {})):
            llm = kind(base_url=server.base_url, model="unknown")
            generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
        assert server.count() == 6


class Completing:
    """No LLM of LlamaIndex's, but it has what LlamaIndex's own function calls; answers are plain strings."""

    def __init__(self, llm: ServerLLM) -> None:
        self._llm, self.model = llm, llm.model

    def complete(self, prompt: str) -> str:
        return str(self._llm.complete(prompt))


def test_what_has_complete_alone_is_asked(tmp_path: Path) -> None:
    nodes, out = nodes_about(THINGS[:1]), str(tmp_path / "qa.json")
    with serving() as server:
        for asked, model in ((3, "a"), (3, "a"), (6, "b")):
            llm: Any = Completing(ServerLLM(base_url=server.base_url, model=model))
            found = generate_qa_embedding_pairs(nodes, llm, output_path=out, verbose=False)
            assert len(found.corpus) == 3 and server.count() == asked
