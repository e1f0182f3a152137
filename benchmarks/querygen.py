"""How fast queries are written, and what is left after faults and kills; LlamaIndex beside it, on the same server.

    python benchmarks/querygen.py                                   # vectune alone
    python benchmarks/querygen.py --llama-python VENV/bin/python    # with LlamaIndex, on 100 of the chunks
    python benchmarks/querygen.py --faults                          # 429s, 500s, broken bodies, hangs, SIGKILLs

The server answers each request in 200 ms and runs in this process; clients run in processes of their own. Times are the
clients' own, around the call that writes the queries, without the start of Python and imports.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from vectune.testing import OpenAIServer

QUERIES = 2
MODEL = "gpt-4o-mini"

VECTUNE = """
import json, sys, time
import openai
from vectune.queries.llm import LLMOptions, LLMWriter
from vectune.records import Chunk
texts, url, concurrency, timeout = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
chunks = [Chunk(text, document_id=f"d{n // 10}") for n, text in enumerate(json.load(open(texts)))]
writer = LLMWriter("gpt-4o-mini", LLMOptions(base_url=url, concurrency=concurrency, timeout=timeout, queries=2))
started, used = time.perf_counter(), time.process_time()
written = [one for one in writer.write(chunks)]
seconds, used = time.perf_counter() - started, time.process_time() - used
counts = {}
for one in written:
    counts[one.chunk_ids[0]] = counts.get(one.chunk_ids[0], 0) + 1
by_place = [counts.get(chunk.id, 0) for chunk in chunks]
print(json.dumps({"seconds": seconds, "cpu": used, "per_chunk": by_place, "cached": writer.cached,
                  "failures": len(writer.failures), "requests": writer.usage.requests}))
"""

LLAMA = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
from llama_index.core.schema import TextNode
from llama_index.finetuning import generate_qa_embedding_pairs
from llama_index.llms.openai_like import OpenAILike
texts, url, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
nodes = [TextNode(text=text, id_=str(n)) for n, text in enumerate(json.load(open(texts)))]
llm = OpenAILike(model="gpt-4o-mini", api_base=url, api_key="none", is_chat_model=True)
started = time.perf_counter()
dataset = generate_qa_embedding_pairs(nodes, llm=llm, num_questions_per_chunk=2, output_path=out, verbose=False)
seconds = time.perf_counter() - started
counts = {}
for judged in dataset.relevant_docs.values():
    counts[judged[0]] = counts.get(judged[0], 0) + 1
print(json.dumps({"seconds": seconds, "per_chunk": [counts.get(node.node_id, 0) for node in nodes]}))
"""


def texts(count: int) -> list[str]:
    """Chunks of about 100 words, all different."""
    words = "pump filter water door lid drum belt motor valve hose level sensor board fuse panel lamp".split()
    return [
        f"Machine {n}. "
        + " ".join(
            f"The {words[(n + i) % 16]} of part {n * 31 + i} moves the {words[(n * i) % 16]}." for i in range(11)
        )
        for n in range(count)
    ]


def start(python: str, program: str, *arguments: str, cache: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "VECTUNE_CACHE": str(cache)}
    command = [python, "-c", program, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"the client ended with {process.returncode}")
    found: dict[str, object] = json.loads(out.splitlines()[-1])
    return found


def per_chunk(found: dict[str, object]) -> Counter[int]:
    counts = found["per_chunk"]
    return Counter(counts) if isinstance(counts, list) else Counter()


def speed(folder: Path, count: int, concurrency: int, llama_python: str | None, llama_count: int) -> None:
    with OpenAIServer(delay=0.2) as server:
        ours = result(_vectune(folder, server, count, concurrency, 60.0))
        print(
            f"vectune: {count} chunks at concurrency {concurrency}: {ours['seconds']:.2f} s "
            f"({ours['cpu']:.2f} s of CPU), {server.count()} requests, queries a chunk: {dict(per_chunk(ours))}, "
            f"most in flight {server.most_in_flight}"
        )
        again = result(_vectune(folder, server, count, concurrency, 60.0))
        print(f"vectune again, from disk: {again['seconds']:.2f} s, {again['requests']} requests")
    if llama_python is None:
        return
    with OpenAIServer(delay=0.2) as server:
        path = json.dumps(str(_texts(folder, llama_count)))
        out = str(folder / "llama.json")
        theirs = result(start(llama_python, LLAMA, path, server.base_url, out, cache=folder / "cache-llama"))
    mine, other = float(str(ours["seconds"])) / count, float(str(theirs["seconds"])) / llama_count
    print(f"LlamaIndex: {llama_count} chunks: {theirs['seconds']:.2f} s, queries a chunk: {dict(per_chunk(theirs))}")
    print(f"for each chunk: vectune {mine * 1000:.1f} ms, LlamaIndex {other * 1000:.1f} ms; ratio {other / mine:.1f}")


def faults(folder: Path, count: int, concurrency: int) -> None:
    rates = {"429": 0.05, "500": 0.02, "malformed": 0.02, "hung": 0.01}
    with OpenAIServer(delay=0.2, rates=rates, retry_after=0.2) as server:
        for kill in range(3):
            process = _vectune(folder, server, count, concurrency, 2.0)
            while sum(server.answered.values()) < (kill + 1) * count // 5 and process.poll() is None:
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            print(f"killed after {sum(server.answered.values())} answers")
        found = result(_vectune(folder, server, count, concurrency, 2.0))
        met = Counter(asked.fault for asked in server.asked if asked.fault)
        print(f"queries a chunk: {dict(per_chunk(found))}, failures: {found['failures']}, from disk: {found['cached']}")
        print(f"requests {server.count()}, proper answers {sum(server.answered.values())}, faults {dict(met)}")
        if per_chunk(found) != {QUERIES: count}:
            raise SystemExit("a chunk has not its queries exactly once")


def _texts(folder: Path, count: int) -> Path:
    path = folder / f"texts-{count}.json"
    path.write_text(json.dumps(texts(count)))
    return path


def _vectune(folder: Path, server: OpenAIServer, count: int, concurrency: int, timeout: float) -> subprocess.Popen[str]:
    arguments = (json.dumps(str(_texts(folder, count))), server.base_url, str(concurrency), str(timeout))
    return start(sys.executable, VECTUNE, *arguments, cache=folder / "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument(
        "--llama-python", help="a Python that has llama-index-finetuning and llama-index-llms-openai-like"
    )
    parser.add_argument("--llama-chunks", type=int, default=100)
    parser.add_argument("--faults", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.faults:
            faults(Path(folder), given.chunks, given.concurrency)
        else:
            speed(Path(folder), given.chunks, given.concurrency, given.llama_python, given.llama_chunks)


if __name__ == "__main__":
    main()
