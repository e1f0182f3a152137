"""Files and folders → Documents, streaming, in a stable order.

Plain text and Markdown are read here; everything else by kreuzberg in worker processes, so that a file that crashes,
hangs or eats memory costs itself and no other.
"""

from __future__ import annotations

import fnmatch
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from vectune.characters import printable
from vectune.charsets import decode
from vectune.errors import DocumentError, check_bounds
from vectune.headings import choose_title, front_matter_title, markdown_headings
from vectune.progress import SILENT, Progress
from vectune.records import Document, Heading
from vectune.runs import is_own
from vectune.workers import MEMORY_GIB, WorkerPool, cpu_count

MARKDOWN = frozenset({".md", ".markdown", ".mdown", ".mkd", ".mdx", ".qmd", ".rmd"})
EXTRACTED = frozenset(
    ".pdf .docx .doc .odt .rtf .pptx .ppt .pptm .ppsx .xlsx .xls .xlsm .xlsb .ods .html .htm .xhtml .epub .fb2 .eml "
    ".msg .csv .tsv .json .jsonl .ndjson .yaml .yml .xml .svg .rst .org .tex .latex .typ .typst .ipynb .opml .bib .ris "
    ".enw .nbib .dbf .djot .docbook .jats .pst .hwp .hwpx .pages .numbers .key "
    ".png .jpg .jpeg .tif .tiff .bmp .gif .webp .jp2".split()
)
VCS = frozenset({"CVS", "_darcs", "RCS", "SCCS"})  # the others are hidden
IN_FLIGHT_BYTES = 64 << 20


@dataclass(frozen=True)
class DocumentOptions:
    """How files are found and read.

    Attributes:
        include: globs; only matching files of a folder are read. ``*`` crosses folders; a bare name matches anywhere.
        exclude: globs; matching files and folders are left out. Files named one by one are always read.
        timeout: seconds that one file may take.
        workers: processes; None means one for each CPU.
        ocr: read pictures and scans where tesseract is installed.
        strict: the first unreadable file ends the run.
        max_megabytes: larger files are skipped.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    timeout: float = 60.0
    workers: int | None = None
    ocr: bool = True
    strict: bool = False
    max_megabytes: float = 256.0

    def __post_init__(self) -> None:
        check_bounds("documents", self, {"workers": (1, inf)}, ("timeout", "max_megabytes"))


@dataclass(frozen=True)
class Skipped:
    """A file that was not read, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class Found:
    """A file to be read: where it is, and its name for people, in which bytes that are not UTF-8 are escaped."""

    path: Path
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", printable(self.source))


def read_documents(
    paths: Sequence[str | Path],
    options: DocumentOptions = DocumentOptions(),
    progress: Progress = SILENT,
    skipped: list[Skipped] | None = None,
    outputs: Sequence[Path] = (),
) -> Iterator[Document]:
    """Read files and folders, one document a file.

    Args:
        paths: files and folders; folders are walked recursively. Hidden and version-control entries are left out, and
            so are folders that vectune wrote, with a warning.
        options: see ``DocumentOptions``.
        progress: counts files.
        skipped: files that could not be read are appended, while the iterator is consumed.
        outputs: folders that are written meanwhile, and files that are read for something else; left out, too.

    Returns:
        An iterator in the order of ``paths``, and by path within a folder. Only a few documents are in memory.

    Raises:
        DocumentError: a path is missing or holds no file (at once); a file is unreadable and ``strict`` is set; nothing
            at all was readable (at the end).
    """
    listed = skipped if skipped is not None else []
    own: list[str] = []
    found = find_files(paths, options, listed, outputs, own)
    if own:
        progress.warn(f"what vectune wrote or uses is no document and is left out ({len(own)}): {', '.join(own)}")
    if not found:
        raise DocumentError(*_nothing(paths, listed, own))
    if options.strict and listed:
        raise DocumentError(listed[0].reason, path=listed[0].source)
    return _read(found, options, progress, listed)


def find_files(
    paths: Sequence[str | Path],
    options: DocumentOptions,
    skipped: list[Skipped],
    outputs: Sequence[Path],
    own: list[str],
) -> list[Found]:
    """The files that would be read, each once.

    Args:
        paths, options: as for ``read_documents``.
        skipped: what cannot be read is appended.
        outputs: folders and files that are left out, unless a file is named by itself.
        own: such files, and other folders that vectune wrote, are appended; they are left out as well.

    Raises:
        DocumentError: a path is missing.
    """
    roots = [Path(path).expanduser() for path in paths]
    for root in roots:
        if not os.path.lexists(root):
            raise DocumentError("no such file or folder.", "Check the path.", path=root)
        if not root.exists():
            raise DocumentError("a symbolic link to nothing, or to itself.", path=root)
    apart = {_identity(folder) for folder in outputs if folder.is_dir()}
    used = {os.path.realpath(file) for file in outputs if file.is_file()}
    found: dict[str, Found] = {}
    for root in roots:
        prefix = f"{root.name}/" if len(roots) > 1 and root.name else ""
        files = _walk(root, prefix, options, skipped, apart, own) if root.is_dir() else [Found(root, root.name)]
        for file in files:
            real = os.path.realpath(file.path)
            if real in used and root.is_dir():
                own.append(printable(str(file.path)))
            else:
                found.setdefault(real, file)
    return _distinct(list(found.values()))


def _distinct(files: list[Found]) -> list[Found]:
    """Files whose short names are equal get the path that was given as their name."""
    names: dict[str, int] = {}
    for file in files:
        names[file.source] = names.get(file.source, 0) + 1
    return [file if names[file.source] == 1 else Found(file.path, file.path.as_posix()) for file in files]


def _identity(folder: str | Path) -> tuple[int, int]:
    """The same for all ways that lead to a folder."""
    stat = os.stat(folder)
    return stat.st_dev, stat.st_ino


def _walk(
    root: Path,
    prefix: str,
    options: DocumentOptions,
    skipped: list[Skipped],
    apart: Set[tuple[int, int]],
    own: list[str],
) -> Iterator[Found]:
    """Files below a folder by name; a folder that links lead to again is walked once, one that is set apart never."""

    def unreadable(error: OSError) -> None:
        folder = printable(os.path.relpath(error.filename, root))
        skipped.append(Skipped(folder, f"the folder cannot be read ({error.strerror})"))

    seen = set(apart)
    for folder, folders, files in os.walk(root, followlinks=True, onerror=unreadable):
        identity = _identity(folder)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        if is_own(Path(folder)):
            own.append(printable(folder))
            folders.clear()
            continue
        relative = Path(folder).relative_to(root)
        folders[:] = [name for name in sorted(folders) if _wanted_folder(relative / name, options)]
        for name in sorted(files):
            if _wanted_file(relative / name, options):
                yield Found(Path(folder, name), prefix + (relative / name).as_posix())


def _wanted_folder(relative: Path, options: DocumentOptions) -> bool:
    return not (relative.name.startswith(".") or relative.name in VCS or _matches(relative, options.exclude))


def _wanted_file(relative: Path, options: DocumentOptions) -> bool:
    if relative.name.startswith((".", "~$")) or _matches(relative, options.exclude):
        return False
    return not options.include or _matches(relative, options.include)


def _matches(relative: Path, globs: Iterable[str]) -> bool:
    path = relative.as_posix()
    for glob in globs:
        glob = glob.removeprefix("./").rstrip("/")
        if fnmatch.fnmatchcase(path, glob.replace("/**/", "/")):  # no folder between; a * crosses any
            return True
        if fnmatch.fnmatchcase(path, glob) or fnmatch.fnmatchcase(relative.name, glob):
            return True
        if glob.startswith("**/") and fnmatch.fnmatchcase(path, glob[3:]):
            return True
        if glob.endswith("/**") and fnmatch.fnmatchcase(path, glob[:-3]):
            return True
    return False


def _nothing(paths: Sequence[str | Path], skipped: list[Skipped], own: Sequence[str] = ()) -> tuple[str, str]:
    named = ", ".join(str(path) for path in paths)
    if own and not skipped:
        hint = "Name the folder of the documents; a dataset's chunks are taken with --ignore-labels."
        return f"{named}: no files to read beside what vectune wrote ({', '.join(own)}).", hint
    if not skipped:
        return (
            f"{named}: no files to read.",
            "Hidden files do not count; [documents] include and exclude in a configuration choose among the others.",
        )
    reasons = "; ".join(f"{skip.source}: {skip.reason}" for skip in skipped[:5])
    more = f"; and {len(skipped) - 5} more" if len(skipped) > 5 else ""
    return f"{named}: none of the files could be read ({reasons}{more}).", "Name files that hold text."


Pending = tuple[Found, "Future[dict[str, Any]] | None", int]


def _read(
    files: list[Found], options: DocumentOptions, progress: Progress, skipped: list[Skipped]
) -> Iterator[Document]:
    read = 0
    count = min(options.workers or cpu_count(), sum(map(_needs_worker, files)))
    with ExitStack() as stack:
        pool = stack.enter_context(WorkerPool(count, options.timeout, MEMORY_GIB)) if count else None
        task = stack.enter_context(progress.task("Reading documents", len(files), "files"))
        for file, answer in _answers(files, pool, count, options):
            task.advance(note=file.source)
            if isinstance(answer, Document):
                read += 1
                yield answer
                continue
            if options.strict:
                raise DocumentError(answer, "Leave --strict out to skip such files.", path=file.path)
            skipped.append(Skipped(file.source, answer))
            progress.event("skipped", source=file.source, reason=answer)
    if not read:
        raise DocumentError(*_nothing([file.path for file in files[:3]], skipped))


def _answers(
    files: list[Found], pool: WorkerPool | None, count: int, options: DocumentOptions
) -> Iterator[tuple[Found, Document | str]]:
    """A document or a reason for each file, in order; the workers read ahead a little."""
    waiting: deque[Pending] = deque()
    ahead = iter(files)
    exhausted = False
    while True:
        while not exhausted and len(waiting) < 8 * count + 1 and sum(size for _, _, size in waiting) < IN_FLIGHT_BYTES:
            file = next(ahead, None)
            if file is None:
                exhausted = True
                break
            waiting.append(_begun(file, pool, options))
        if not waiting:
            return
        file, future, _ = waiting.popleft()
        yield file, _read_text(file, options) if future is None else _document(file, future.result())


def _begun(file: Found, pool: WorkerPool | None, options: DocumentOptions) -> Pending:
    if pool is None or not _needs_worker(file) or _refusal(file.path, options):
        return file, None, 0
    return file, pool.submit(str(file.path), file.source, options.ocr), file.path.stat().st_size


def _needs_worker(file: Found) -> bool:
    return file.path.suffix.lower() in EXTRACTED


def _refusal(path: Path, options: DocumentOptions) -> str:
    """Why a file is not even opened; empty where nothing speaks against it."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            return "not a regular file"
        if size == 0:
            return "the file is empty (0 bytes)"
        if size > options.max_megabytes * 1e6:
            return f"larger than {options.max_megabytes:g} MB"
        path.open("rb").close()
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return ""


def _document(file: Found, answer: dict[str, Any]) -> Document | str:
    if "reason" in answer:
        return str(answer["reason"])
    headings = tuple(Heading(start, level, text) for start, level, text in answer["headings"])
    return Document(answer["text"], file.source, answer["title"], tuple(answer["pages"]), headings)


def _read_text(file: Found, options: DocumentOptions) -> Document | str:
    refusal = _refusal(file.path, options)
    if refusal:
        return refusal
    try:
        text = decode(file.path.read_bytes())
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return str(error)
    markdown = file.path.suffix.lower() in MARKDOWN
    if not any(map(str.isalnum, text)):
        return "no text in it"
    if "\x00" in text[:8192] and not markdown:
        return "not text: it holds NUL bytes"
    headings = markdown_headings(text) if markdown else ()
    given = front_matter_title(text) if markdown else ""
    return Document(text, file.source, choose_title(given, headings, file.source), (), headings)
