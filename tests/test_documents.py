from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from pdfs import make_pdf
from pictures import make_png, make_scan
from tiny_dataset import small_dataset
from vectune.config import config_from
from vectune.documents import DocumentOptions, Skipped, read_documents
from vectune.errors import DocumentError, UsageError
from vectune.extraction import _marked_pages
from vectune.progress import SILENT, Progress
from vectune.records import Document

NOT_UTF8 = "not UTF-8, and it declares no other encoding that fits: save it as UTF-8, if it is text"


def write(folder: Path, **files: str | bytes) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def read(*paths: Path, **options: object) -> tuple[list[Document], list[Skipped]]:
    skipped: list[Skipped] = []
    return list(read_documents(paths, DocumentOptions(**options), SILENT, skipped)), skipped  # type: ignore[arg-type]


def sources(folder: Path, **options: object) -> list[str]:
    return [document.source for document in read(folder, **options)[0]]


def test_text_and_markdown_come_as_they_are_in_order_of_path(tmp_path: Path) -> None:
    write(
        tmp_path, b_dot_txt="plain\r\ntext", a_dot_md="# Title\n\nbody", sub__c_dot_md="no heading here", Z_dot_rst="x"
    )
    documents, skipped = read(tmp_path, exclude=("*.rst",))
    assert [(d.source, d.title, d.text) for d in documents] == [
        ("a.md", "Title", "# Title\n\nbody"),
        ("b.txt", "b", "plain\r\ntext"),
        ("sub/c.md", "c", "no heading here"),
    ]
    assert documents[0].headings[0].text == "Title"
    assert skipped == []


def test_hidden_and_version_control_entries_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, _dot_hidden_dot_md="x", _dot_git__config="x", CVS__Root="x", a_dot_md="x")
    (tmp_path / "~$a.docx").write_text("lock")
    assert sources(tmp_path) == ["a.md"]


def test_include_and_exclude_globs(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="x", b_dot_txt="x", drafts__c_dot_md="x", deep__er__d_dot_md="x")
    assert sources(tmp_path, include=("*.md",)) == ["a.md", "deep/er/d.md", "drafts/c.md"]
    assert sources(tmp_path, exclude=("drafts",)) == ["a.md", "b.txt", "deep/er/d.md"]
    assert sources(tmp_path, include=("**/*.md",), exclude=("deep/**", "./drafts/")) == ["a.md"]
    assert sources(tmp_path, include=("deep/**/d.md", "drafts/**/*.md")) == ["deep/er/d.md", "drafts/c.md"]
    assert sources(tmp_path / "b.txt", include=("*.md",)) == ["b.txt"], "a file named by itself is always read"


def test_what_vectune_wrote_is_left_out_and_what_only_looks_like_it_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small_dataset().write(tmp_path / "own")
    write(tmp_path, run__run_dot_json='{"vectune": "0.1", "inputs": ["."]}', run__old__report_dot_md="x", a_dot_md="x")
    write(tmp_path, other__run_dot_json='{"command": "make"}', other__vectune_dot_json="[1, 2]", other__a_dot_md="x")
    write(tmp_path, other__dataset_dot_json='{"counts": {}}', other__retriever_dot_json='["dog"]')
    names = ["a.md", *(f"other/{name}" for name in ("a.md", "dataset.json", "retriever.json", "run.json"))]
    assert sources(tmp_path) == [*names, "other/vectune.json"]
    assert f"(2): {tmp_path / 'own'}, {tmp_path / 'run'}" in capsys.readouterr().err


def test_links_in_circles_and_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="x", sub__b_dot_md="y")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    (tmp_path / "gone.md").symlink_to(tmp_path / "nowhere")
    (tmp_path / "self.md").symlink_to(tmp_path / "self.md")
    documents, skipped = read(tmp_path)
    assert [document.source for document in documents] == ["a.md", "sub/b.md"]
    assert {skip.source for skip in skipped} == {"gone.md", "self.md"}


def test_a_file_reached_twice_is_read_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, one__a_dot_md="x", two__a_dot_md="y")
    documents, _ = read(tmp_path / "one", tmp_path / "two", tmp_path / "one" / "a.md")
    assert [document.source for document in documents] == ["one/a.md", "two/a.md"]
    documents, _ = read(tmp_path / "one" / "a.md", tmp_path / "two" / "a.md")
    assert len({document.source for document in documents}) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="file names are UTF-8 there")
def test_names_that_are_not_utf8_are_read_and_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9.md", b"caf\xe8.md"):
        (tmp_path / os.fsdecode(name)).write_text("Some words.")
    (tmp_path / os.fsdecode(b"caf\xe9.pdf")).write_bytes(make_pdf([["Some text that can be read."]]))
    documents, skipped = read(tmp_path)
    assert [document.source for document in documents] == [r"caf\udce8.md", r"caf\udce9.md", r"caf\udce9.pdf"]
    assert "Some text" in documents[2].text and not skipped
    assert all(document.title.isascii() for document in documents)


def test_bad_files_among_good_ones_are_skipped_with_a_reason(tmp_path: Path) -> None:
    good = make_pdf([["Some text that can be read."]])
    write(tmp_path, good_dot_pdf=good, truncated_dot_pdf=good[:300], scan_dot_pdf=make_pdf([[], []]))
    write(tmp_path, none_dot_pdf=make_pdf([]))
    write(tmp_path, locked_dot_pdf=make_pdf([["Hidden text"]], encrypted=True), empty_dot_pdf="", empty_dot_txt="")
    write(tmp_path, latin_dot_txt="caf\xe8".encode("latin-1"), blank_dot_md=" \n\n", binary=b"a\x00b", pic_dot_png="x")
    documents, skipped = read(tmp_path, ocr=False)
    assert [document.source for document in documents] == ["good.pdf"]
    assert {skip.source: skip.reason for skip in skipped} == {
        "truncated.pdf": "damaged or truncated PDF",
        "none.pdf": "a PDF without pages",
        "scan.pdf": "no text in it (a scan?); OCR needs tesseract",
        "locked.pdf": "encrypted: it needs a password",
        "empty.pdf": "the file is empty (0 bytes)",
        "empty.txt": "the file is empty (0 bytes)",
        "latin.txt": NOT_UTF8,
        "blank.md": "no text in it",
        "binary": "not text: it holds NUL bytes",
        "pic.png": "a picture; OCR needs tesseract",
    }


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_skipped(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="x", b_dot_md="y")
    (tmp_path / "b.md").chmod(0)
    assert "cannot be opened" in read(tmp_path)[1][0].reason


def test_strict_ends_at_the_first_bad_file(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="x", b_dot_md="")
    with pytest.raises(DocumentError, match=r"b\.md: the file is empty"):
        read(tmp_path, strict=True)


def test_missing_paths_and_empty_folders_are_errors_at_once(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="nowhere: no such file"):
        read_documents([tmp_path / "nowhere"])
    with pytest.raises(DocumentError, match="no files to read"):
        read_documents([tmp_path])
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DocumentError, match="a symbolic link to nothing"):
        read_documents([tmp_path / "loop"])


def test_nothing_readable_is_an_error_that_lists_reasons(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="", b_dot_bin=b"\xff\x00")
    with pytest.raises(DocumentError, match=r"none of the files .*a\.md: the file is empty.*b\.bin: not text"):
        read(tmp_path)


def test_large_files_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, a_dot_md="x" * 2000, b_dot_md="y")
    documents, skipped = read(tmp_path, max_megabytes=0.001)
    assert [document.source for document in documents] == ["b.md"]
    assert skipped[0].reason == "larger than 0.001 MB"


def test_a_pdf_has_pages_headings_and_its_running_head_once(tmp_path: Path) -> None:
    body = "This line of running text is long enough to fill the whole width of its column here"
    pages = [
        [
            "Annual Report of Acme",
            f"{number}. Chapter Number {number}",
            body,
            f"and ends on page {number}.",
            str(number),
        ]
        for number in range(1, 6)
    ]
    (tmp_path / "report_2021.pdf").write_bytes(make_pdf(pages, title="0001-22-17"))
    (document,) = read(tmp_path)[0]
    assert document.title == "report 2021", "a number is no title"
    assert document.text.count("Annual Report") == 1
    assert len(document.pages) == 5
    starts = [document.text.index("1. Chapter"), *document.pages[1:]]
    for number, start in enumerate(starts, 1):
        assert document.text[start:].startswith(
            f"{number}. Chapter Number {number}\n\n{body} and ends on page {number}."
        )
    headings = ["Annual Report of Acme", *(f"{number}. Chapter Number {number}" for number in range(1, 6))]
    assert [heading.text for heading in document.headings] == headings
    assert all(document.text.startswith(heading.text, heading.start) for heading in document.headings)


def test_files_that_are_used_otherwise_are_no_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, a_dot_md="x", queries_dot_txt="how do I open it")
    asked = tmp_path / "queries.txt"
    found = list(read_documents([tmp_path], DocumentOptions(), Progress(), [], [asked, tmp_path / "none"]))
    assert [document.source for document in found] == ["a.md"]
    assert f"left out (1): {asked}" in capsys.readouterr().err
    found = list(read_documents([asked], DocumentOptions(), Progress(), [], [asked]))
    assert [document.source for document in found] == ["queries.txt"], "a file named by itself is always read"


def test_headings_and_tables_of_html_and_docx_survive(tmp_path: Path) -> None:
    table = "<table><tr><th>a</th></tr><tr><td>b</td></tr></table>"
    body = f"<body><h1>Top</h1><p>text</p><h2>Sub</h2>{table}</body>"
    write(tmp_path, page_dot_html=f"<html><head><title>T</title></head>{body}</html>")
    with zipfile.ZipFile(tmp_path / "word.docx", "w") as file:
        file.writestr("[Content_Types].xml", _TYPES)
        file.writestr("_rels/.rels", _RELATIONS)
        file.writestr("word/document.xml", _DOCUMENT)
    write(
        tmp_path,
        strict_dot_xhtml=f'<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title></head>{body}</html>',
    )
    page, strict, word = read(tmp_path)[0]
    assert (strict.text, strict.title, strict.headings) == (page.text, page.title, page.headings)
    assert page.title == "T"
    assert [(heading.level, heading.text) for heading in page.headings] == [(1, "Top"), (2, "Sub")]
    assert "| a |" in page.text
    assert "Words of Word." in word.text


_PREFIX = '<?xml version="1.0" encoding="UTF-8"?>'
_TYPES = (
    f'{_PREFIX}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" '
    'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>'
)
_RELATIONS = (
    f'{_PREFIX}<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship '
    'Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" '
    'Target="word/document.xml"/></Relationships>'
)
_DOCUMENT = (
    f'{_PREFIX}<w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body><w:p><w:r>'
    "<w:t>Words of Word.</w:t></w:r></w:p></w:body></w:document>"
)


def test_only_a_few_files_are_read_ahead(tmp_path: Path) -> None:
    write(tmp_path, **{f"f{number:03}_dot_md": f"text {number}" for number in range(100)})
    documents = read_documents([tmp_path])
    assert next(documents).text == "text 0"
    (tmp_path / "f099.md").write_text("changed")
    assert list(documents)[-1].text == "changed", "the last file must not have been read with the first"


def test_importing_documents_does_not_import_kreuzberg() -> None:
    code = "import sys, vectune.documents; sys.exit('kreuzberg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_under_the_name_of_a_document_is_not_text(tmp_path: Path) -> None:
    noise = bytes(range(128, 256)) * 8
    write(
        tmp_path, a_dot_html=noise, b_dot_docx=b"PK\x03\x04" + noise, c_dot_epub=noise, d_dot_html="<p>The car. \u00e9"
    )
    documents, skipped = read(tmp_path)
    assert [document.source for document in documents] == ["d.html"]
    assert [one.source for one in skipped] == ["a.html", "b.docx", "c.epub"]
    assert skipped[0].reason == NOT_UTF8
    assert skipped[1].reason == skipped[2].reason == "damaged or truncated file"


def test_texts_in_the_encodings_of_old_are_read_as_they_declare(tmp_path: Path) -> None:
    german = "Die Größe der Räume richtet sich nach der Übersicht im Anhang."
    english = "The device\u2019s caf\u00e9 mode \u2013 also called \u201cidle\u201d \u2013 costs 5\u20ac a day."
    japanese = "漢字かな混じり文が続いている。"
    html = "<html><head><meta {}><title>T</title></head><body><p>{}</p></body></html>"
    content_type = 'http-equiv="Content-Type" content="text/html; charset={}"'
    written = {
        "a.html": (html.format("charset='windows-1252'", english), "cp1252"),
        "b.htm": (html.format(content_type.format("iso-8859-1"), english), "cp1252"),
        "c.html": (html.format('charset="Shift_JIS"', japanese), "cp932"),
        "d.html": (html.format("name=x", german), "utf-16"),
        "e.xml": (f"<?xml version='1.0' encoding='iso-8859-1'?><r><p>{german}</p></r>", "latin-1"),
        "f.tex": (
            "\\documentclass{article}\\usepackage[latin1]{inputenc}\n\\begin{document}\n"
            f"{german}\n\\end{{document}}\n",
            "latin-1",
        ),
        "g.rst": (german, "latin-1"),
        "h.txt": (german, "latin-1"),
    }
    for name, (text, encoding) in written.items():
        (tmp_path / name).write_bytes(text.encode(encoding))
    documents, skipped = read(tmp_path)
    assert not skipped
    expected = [english, english, japanese, german, german, german, german, german]
    for document, sentence in zip(documents, expected, strict=True):
        assert sentence in document.text, document.source


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="OCR needs tesseract")
def test_a_stamp_on_each_page_does_not_stand_for_what_is_in_the_pictures(tmp_path: Path) -> None:
    write(tmp_path, a_dot_pdf=make_scan(["THE LITTLE HILL", "FILL IT", "THE HILL"], stamp="Received by the archive"))
    (document,), _ = read(tmp_path, timeout=300.0)
    assert "THE LITTLE HILL" in document.text
    (document,), _ = read(tmp_path, ocr=False)
    assert set(document.text.split()) == set("Received by the archive".split())


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="OCR needs tesseract")
def test_pictures_and_scans_are_read_by_ocr(tmp_path: Path) -> None:
    write(tmp_path, a_dot_png=make_png("THE LITTLE HILL"), b_dot_pdf=make_scan(["THE LITTLE HILL", "FILL IT"]))
    documents, skipped = read(tmp_path, timeout=300.0)
    assert [document.source for document in documents] == ["a.png", "b.pdf"], skipped
    assert "THE LITTLE HILL" in documents[0].text
    second = documents[1].pages[1]
    assert "THE LITTLE HILL" in documents[1].text[:second] and "FILL IT" in documents[1].text[second:]
    refused = {skip.source: skip.reason for skip in read_only(tmp_path, ocr=False)}
    assert refused == {
        "a.png": "a picture; OCR needs tesseract",
        "b.pdf": "no text in it (a scan?); OCR needs tesseract",
    }


def read_only(folder: Path, **options: object) -> list[Skipped]:
    """What is skipped where nothing can be read."""
    skipped: list[Skipped] = []
    with pytest.raises(DocumentError):
        list(read_documents([folder], DocumentOptions(**options), SILENT, skipped))  # type: ignore[arg-type]
    return skipped


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_reader_that_hangs_costs_its_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader opens a pipe that nobody writes to: it hangs in the kernel, as on a dead network drive."""
    write(tmp_path, a_dot_html="<p>The first page.</p>", b_dot_html="x", c_dot_html="<p>The last.</p>")
    (tmp_path / "b.html").unlink()
    os.mkfifo(tmp_path / "b.html")
    monkeypatch.setattr("vectune.documents._refusal", lambda *_: "")  # it would refuse what is no regular file
    documents, skipped = read(tmp_path, timeout=4.0, workers=1)
    assert [document.text.strip() for document in documents] == ["The first page.", "The last."]
    assert skipped == [Skipped("b.html", "reading it took over 4 s")]


def test_pages_that_were_read_by_ocr_are_told_apart() -> None:
    assert _marked_pages("1\fthe car\n\f2\f\f3\fthe 3 seas") == ["the car\n", "", "the 3 seas"]


def test_a_folder_that_vectune_wrote_is_named_where_nothing_else_is_there(tmp_path: Path) -> None:
    small_dataset().write(tmp_path / "own")
    with pytest.raises(DocumentError, match=r"no files to read beside what vectune wrote \(.*own\)"):
        list(read_documents([tmp_path / "own"]))


@pytest.mark.parametrize("name", ["workers", "timeout", "max_megabytes"])
def test_options_without_sense_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=rf"a file: documents.{name}: -1: expected"):
        config_from({"documents": {name: -1}}, "a file")
