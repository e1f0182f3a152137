"""One file → its text and structure, by kreuzberg. Run as a program, it is the worker that ``workers.py`` starts.

Kreuzberg reads files of unknown origin with native code, so it never runs in the main process. The worker reads
requests from standard input and answers on standard output: eight bytes of length, then JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from vectune.charsets import as_utf8
from vectune.headings import choose_title, markdown_headings
from vectune.pages import join_pages

LENGTH = struct.Struct(">Q")
PAGED = ("application/pdf",)
TEXTS = frozenset(  # that kreuzberg takes for UTF-8; tables and e-mail it reads in any encoding
    ".html .htm .xhtml .xml .svg .json .jsonl .ndjson .yaml .yml .rst .org .tex .latex .typ .typst .ipynb .opml .bib "
    ".ris .enw .nbib .djot .docbook .jats .fb2".split()
)
MOST_UNREADABLE = 0.05  # of a text's characters; a few come from a wrong encoding, many are no text at all
NO_TEXT = "no text in it (a scan?); OCR needs tesseract"
HTML = ("text/html", "application/xhtml+xml")
_HTML_HEAD = re.compile(r"\A---\n(?:[\w:.-]+: [^\n]*\n)*\n*(?:## title: [^\n]*\n+|---\n+)")  # kreuzberg puts it on top
_MARK = "\f{page_num}\f"  # in front of each page
_MARKED = re.compile(r"(?:\A|\f)\d+\f")  # kreuzberg strips the text, and the first mark with it
_FAILURES = (  # what kreuzberg says → what a person can act on
    ("no page boundaries", "a PDF without pages"),
    ("password", "encrypted: it needs a password"),
    ("encrypt", "encrypted: it needs a password"),
    ("formaterror", "damaged or truncated PDF"),
    ("invalid pdf", "damaged or truncated PDF"),
    ("zip archive", "damaged or truncated file"),
    ("decode image", "damaged or truncated picture"),
    ("unsupported", "a format that cannot be read"),
    ("mime type", "a format that cannot be read"),
    ("missingdependency", "a helper program is missing"),
)


def send(stream: IO[bytes], message: Any, errors: str = "replace") -> None:
    """Write one message; ``errors`` says what becomes of surrogates, as in ``str.encode``."""
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", errors)
    stream.write(LENGTH.pack(len(body)) + body)
    stream.flush()


def receive(stream: IO[bytes]) -> Any:
    """Read one message; None when the other side is gone."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    body = stream.read(length)
    return json.loads(body) if len(body) == length else None


def extract(path: str, source: str, ocr: bool) -> dict[str, Any]:
    """Text, pages, headings and title of one file, or ``{"reason": ...}`` where there is none.

    Args:
        path: the file.
        source: its name for people; a title is made of it where the file has none.
        ocr: read pictures of text where tesseract is installed.
    """
    from kreuzberg.exceptions import KreuzbergError

    can_ocr = ocr and shutil.which("tesseract") is not None
    picture = Path(path).suffix.lower() in PICTURES
    if picture and not can_ocr:
        return {"reason": "a picture; OCR needs tesseract"}
    try:
        found = _extract(path, source, picture)
        if can_ocr and not picture and (found["bare"] or not _has_text(found["text"])):
            read = _extract(path, source, True)
            found = read if _has_text(read["text"]) else found
    except (KreuzbergError, OSError, ValueError, RuntimeError) as error:
        return {"reason": reason(error)}
    if found["text"].count("\ufffd") > MOST_UNREADABLE * len(found["text"]):
        return {"reason": "not text: most likely binary data"}
    if _has_text(found["text"]):
        return found
    return {"reason": NO_TEXT if path.lower().endswith(".pdf") and not can_ocr else "no text in it"}


PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")


def _extract(path: str, source: str, ocr: bool) -> dict[str, Any]:
    from kreuzberg import extract_file_sync

    paged = path.lower().endswith(".pdf")
    with _readable(path) as name:
        result = extract_file_sync(name, config=_config(paged, ocr))
    metadata = dict(result.metadata or {})
    given = str(metadata.get("title") or metadata.get("subject") or "")
    if result.pages and result.mime_type in PAGED:
        made = join_pages(_marked_pages(result.content) if ocr else [page["content"] for page in result.pages])
        given = str(metadata.get("title") or "")
        title = choose_title(given, made.headings, source, trust_headings=False)
        return {**_answer(made.text, title, made.pages, made.headings), "bare": made.bare}
    text = _HTML_HEAD.sub("", result.content, count=1) if result.mime_type in HTML else result.content
    headings = markdown_headings(text)
    return _answer(text, choose_title(given, headings, source), (), headings)


@contextmanager
def _readable(path: str) -> Iterator[str]:
    """The path, or a link to it or a copy: kreuzberg takes no path that is not UTF-8, nor text that is not."""
    text = _mended(path)
    if text is None and _is_utf8(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        beside = Path(folder, "file" + Path(path).suffix)
        if text is None:
            beside.symlink_to(os.path.abspath(path))
        else:
            beside.write_bytes(text)
        yield str(beside)


def _mended(path: str) -> bytes | None:
    """What a file of text holds, in UTF-8; None where the file itself can be read."""
    if Path(path).suffix.lower() not in TEXTS:
        return None
    data = Path(path).read_bytes()
    text = as_utf8(data)
    return None if text is data else text


def _is_utf8(path: str) -> bool:
    return path == path.encode("utf-8", "replace").decode()


def _marked_pages(text: str) -> list[str]:
    """The pages of a text with marks: pages that were read by OCR are empty in kreuzberg's list of pages."""
    return _MARKED.split(text)[1:]


def _answer(text: str, title: str, pages: Any, headings: Any) -> dict[str, Any]:
    marks = [(heading.start, heading.level, heading.text) for heading in headings]
    return {"text": text, "title": title, "pages": list(pages), "headings": marks, "bare": False}


def _config(paged: bool, ocr: bool) -> Any:
    from kreuzberg import ConcurrencyConfig, ExtractionConfig, OcrConfig, PageConfig, TreeSitterConfig

    return ExtractionConfig(
        use_cache=False,  # it would leave files in the user's folders
        output_format="plain" if paged else "markdown",  # Markdown of a PDF is four times slower and mixes lines up
        pages=PageConfig(extract_pages=True, insert_page_markers=ocr, marker_format=_MARK) if paged else None,
        ocr=OcrConfig(backend="tesseract") if ocr else None,
        concurrency=ConcurrencyConfig(max_threads=1),  # the processes are the parallelism
        tree_sitter=TreeSitterConfig(enabled=False),  # it would download grammars
    )


def _has_text(text: str) -> bool:
    return any(map(str.isalnum, text))


def reason(error: BaseException) -> str:
    """What went wrong with a file, in a line."""
    said = f"{type(error).__name__}: {error}"
    for mark, meaning in _FAILURES:
        if mark in said.lower():
            return meaning
    return " ".join((str(error) or said).split())[:200]


def limit_memory(gib: float) -> None:
    """Let this process fail, and not the machine, when a file makes it ask for more."""
    try:
        import resource
    except ImportError:  # Windows
        return
    size = int(gib * 2**30)
    kind = resource.RLIMIT_DATA if sys.platform == "linux" else resource.RLIMIT_AS
    try:
        resource.setrlimit(kind, (size, size))
    except (ValueError, OSError):  # a stricter limit is set already
        return


def serve(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Answer requests until the other side closes."""
    while (request := receive(requests)) is not None:
        try:
            answer = extract(request["path"], request["source"], request["ocr"])
        except MemoryError:
            answer = {"reason": "it needs too much memory"}
        except Exception as error:  # whatever one file does must not end the others
            answer = {"reason": reason(error)}
        send(answers, answer)


def main() -> None:
    """The worker: standard output is kept for answers, so libraries that print cannot garble them."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit_memory(float(sys.argv[1]))
    serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
