"""How much of each gold span is retrieved within a token budget, by chunker; same embedder, same chunk size.

    python benchmarks/chunking.py --data DATA --peers PYTHON [--size 256] [--budgets 500,1000,2000]

DATA holds ``chunking_eval/original`` and ``legalbenchrag/original``: documents, and questions with gold character
spans. PYTHON has llama-index-core and chonkie (they need not be installed beside vectune); without it only vectune's
chunkers run (measured with llama-index-core 0.14.25 and chonkie 1.7.0). Each chunker cuts every document into chunks of
at most SIZE tokens of all-MiniLM-L6-v2, special tokens included; all chunks of a set are embedded and ranked by cosine
for each question. Retrieved text is taken from the best chunk on until BUDGET tokens are full; the chunk that crosses
the budget is cut there, so that nobody gains by large or small chunks. Recall is the share of the gold characters in
that text, precision the share of that text's characters that is gold; both are means over questions. Text retrieved
twice (overlap) costs twice and counts once.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

Span = tuple[int, int]
Chunks = dict[str, list[Span]]  # document → spans of its chunks


@dataclass(frozen=True)
class Gold:
    """A question and where its answer stands."""

    question: str
    spans: tuple[tuple[str, int, int], ...]  # document, start, end


@dataclass(frozen=True)
class Set:
    """Documents and questions."""

    name: str
    texts: dict[str, str]
    gold: list[Gold]


# Reading the sets


def chunking_eval(folder: Path) -> Set:
    texts = {file.stem: file.read_text(encoding="utf-8") for file in sorted((folder / "corpora").glob("*.md"))}
    with (folder / "questions_df.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    gold = [
        Gold(
            row["question"],
            tuple((row["corpus_id"], ref["start_index"], ref["end_index"]) for ref in json.loads(row["references"])),
        )
        for row in rows
    ]
    return Set("chunking_eval", texts, gold)


def legalbenchrag(folder: Path) -> Set:
    texts: dict[str, str] = {}
    gold = []
    for part in ("contractnli", "privacy_qa"):
        for file in sorted((folder / part).glob("*.txt")):
            with file.open(encoding="utf-8", newline="") as stream:  # spans count every character, also \r
                texts[f"{part}/{file.name}"] = stream.read()
        tests = json.loads((folder / f"{part}.json").read_text(encoding="utf-8"))["tests"]
        gold += [
            Gold(test["query"], tuple((snippet["file_path"], *snippet["span"]) for snippet in test["snippets"]))
            for test in tests
        ]
    gold = [one for one in gold if all(name in texts for name, _, _ in one.spans)]  # one policy is not in the folder
    return Set("legalbenchrag", texts, gold)


def sampled(data: Set, count: int) -> Set:
    """Every n-th document, and the questions that these answer alone."""
    names = sorted(data.texts)[:: -(-len(data.texts) // count)]
    texts = {name: data.texts[name] for name in names}
    return Set(data.name, texts, [gold for gold in data.gold if all(name in texts for name, _, _ in gold.spans)])


def check_spans(data: Set) -> None:
    for gold in data.gold:
        for document, start, end in gold.spans:
            if not 0 <= start < end <= len(data.texts[document]):
                raise SystemExit(f"{data.name}: the span {start}:{end} is outside {document}")


# Chunkers. The peers run in their own Python: this file calls itself there with --peer.


def ours(texts: dict[str, str], size: int, overlap: int) -> Chunks:
    from vectune.chunking import Chunker, ChunkOptions

    options = ChunkOptions(tokens=size, overlap=overlap, context="none")
    chunker = Chunker.for_model("all-MiniLM-L6-v2", options)
    return {
        name: [(chunk.start, chunk.end) for chunk in chunker.split(document(name, text))]
        for name, text in texts.items()
    }


def document(name: str, text: str):  # type: ignore[no-untyped-def]  # noqa: ANN201 - vectune is absent in the peers' Python
    from vectune.headings import markdown_headings
    from vectune.records import Document

    return Document(text, name, headings=markdown_headings(text) if name.endswith(".md") else ())


def llama_index(texts: dict[str, str], size: int, overlap: int, tokenizer: str) -> Chunks:
    library = import_module("llama_index.core.node_parser")
    encode = _encoder(tokenizer)
    splitter = library.SentenceSplitter(chunk_size=size, chunk_overlap=overlap, tokenizer=encode)
    return {name: _located(text, splitter.split_text(text)) for name, text in texts.items()}


def chonkie(texts: dict[str, str], size: int, overlap: int, tokenizer: str) -> Chunks:
    from tokenizers import Tokenizer

    library = import_module("chonkie")

    loaded = Tokenizer.from_file(tokenizer)
    loaded.no_truncation()
    loaded.no_padding()
    chunker = library.RecursiveChunker(tokenizer=loaded, chunk_size=size)
    return {name: [(chunk.start_index, chunk.end_index) for chunk in chunker(text)] for name, text in texts.items()}


def _encoder(tokenizer: str) -> Callable[[str], list[int]]:
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(tokenizer)
    loaded.no_truncation()
    loaded.no_padding()
    return lambda text: list(loaded.encode(text, add_special_tokens=False).ids)


def _located(text: str, chunks: list[str]) -> list[Span]:
    """Where chunks stand, found from the start of the one before on."""
    spans = []
    at = 0
    for chunk in chunks:
        start = text.find(chunk, at)
        if start < 0:
            raise SystemExit(f"a chunk is not in its text: {chunk[:80]!r}")
        spans.append((start, start + len(chunk)))
        at = start + 1
    return spans


PEERS = {"llama_index": llama_index, "chonkie": chonkie}


def by_peer(python: str, name: str, texts: dict[str, str], size: int, overlap: int, tokenizer: str) -> Chunks:
    request = json.dumps({"texts": texts, "size": size, "overlap": overlap, "tokenizer": tokenizer})
    done = subprocess.run(
        [python, __file__, "--peer", name], input=request, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    return {name: [(start, end) for start, end in spans] for name, spans in json.loads(done.stdout).items()}


def answer_as_peer(name: str) -> None:
    request = json.loads(sys.stdin.read())
    sys.stdout.write(json.dumps(PEERS[name](**request)))


# Scoring


def score(data: Set, chunks: Chunks, size: int, budgets: list[int], titles: bool) -> dict[int, tuple[float, float]]:
    """Budget → mean recall and mean precision over the questions."""
    import numpy as np

    from vectune.embedders.factory import open_embedder

    embedder = open_embedder("all-MiniLM-L6-v2")
    encode = _encoder(tokenizer_file())
    places = [(name, start, end) for name, spans in chunks.items() for start, end in spans]
    contents = [f"{Path(name).stem} " * titles + data.texts[name][start:end] for name, start, end in places]
    tokens = np.array([len(encode(data.texts[name][start:end])) for name, start, end in places])
    ranked = embedder.embed_queries([gold.question for gold in data.gold]) @ embedder.embed_documents(contents).T
    found: dict[int, tuple[float, float]] = {}
    order = np.argsort(-ranked, axis=1, kind="stable")[:, : 1 + max(budgets) // 4]
    for budget in budgets:
        values = []
        for gold, best in zip(data.gold, order, strict=True):
            values.append(_recall_precision(gold, [places[i] for i in best], tokens[best].tolist(), budget))
        recall, precision = np.mean(values, axis=0)
        found[budget] = (float(recall), float(precision))
    return found


def _recall_precision(
    gold: Gold, places: list[tuple[str, int, int]], tokens: list[int], budget: int
) -> tuple[float, float]:
    wanted = {(name, at) for name, start, end in gold.spans for at in range(start, end)}
    names = {name for name, _, _ in gold.spans}
    hit: set[tuple[str, int]] = set()
    characters = 0
    for (name, start, end), count in zip(places, tokens, strict=True):
        if count > budget:
            end = start + round((end - start) * budget / count)
        characters += end - start
        if name in names:
            hit.update((name, at) for at in range(start, end))
        budget -= min(count, budget)
        if not budget:
            break
    good = len(wanted & hit)
    return good / len(wanted), good / max(characters, 1)


def tokenizer_file() -> str:
    from vectune.embedders.models import model_path

    return str(Path(model_path("all-MiniLM-L6-v2")) / "tokenizer.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--peers", help="a Python that has llama-index-core and chonkie")
    parser.add_argument("--size", type=int, default=256, help="tokens of a chunk with the two special ones")
    parser.add_argument("--overlap", type=int, default=0, help="of vectune and LlamaIndex; chonkie's chunker has none")
    parser.add_argument("--budgets", default="250,500,1000,2000")
    parser.add_argument("--titles", action="store_true", help="embed each chunk behind its document's name, for all")
    parser.add_argument("--documents", type=int, help="of legalbenchrag, only so many (every n-th) and their questions")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peer", choices=PEERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return answer_as_peer(args.peer)
    if args.data is None:
        parser.error("--data is needed")
    budgets = [int(part) for part in args.budgets.split(",")]
    rows = []
    for read in (chunking_eval, legalbenchrag):
        data = read(args.data / read.__name__ / "original")
        check_spans(data)
        if args.documents and len(data.texts) > args.documents:
            data = sampled(data, args.documents)
        rows += compare(data, args, budgets)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def compare(data: Set, args: argparse.Namespace, budgets: list[int]) -> list[dict[str, object]]:
    size, overlap = args.size - 2, args.overlap
    chunkers: dict[str, Callable[[], Chunks]] = {"vectune": partial(ours, data.texts, args.size, overlap)}
    for peer in PEERS if args.peers else ():
        chunkers[peer] = partial(by_peer, args.peers, peer, data.texts, size, overlap, tokenizer_file())
    print(f"\n{data.name}: {len(data.texts)} documents, {len(data.gold)} questions, chunks of {args.size} tokens")
    print(f"{'':14}{'chunks':>7}{'s':>7}  " + "  ".join(f"recall / precision @ {budget:<5}" for budget in budgets))
    rows: list[dict[str, object]] = []
    for name, cut in chunkers.items():
        started = time.perf_counter()
        chunks = cut()
        seconds = time.perf_counter() - started
        found = score(data, chunks, args.size, budgets, args.titles)
        count = sum(map(len, chunks.values()))
        cells = "  ".join(f"{found[budget][0]:.4f} / {found[budget][1]:.4f}{'':11}" for budget in budgets)
        print(f"{name:14}{count:7}{seconds:7.1f}  {cells}", flush=True)
        rows.append({"set": data.name, "chunker": name, "chunks": count, "seconds": seconds, "found": found})
    return rows


if __name__ == "__main__":
    main()
