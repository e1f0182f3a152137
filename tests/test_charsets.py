from __future__ import annotations

import pytest

from vectune.charsets import as_utf8, decode


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("é", "utf-8-sig"), ("é", "utf-16"), ("é", "utf-8"), ("Größe", "cp1252"), ("5 € – “so”", "cp1252"),
        ("it’s so—or not…Größe", "cp1252"),
        ("<meta charset=windows-1251>Привет", "cp1251"), ("<META CHARSET='x-sjis'>漢字。①", "cp932"),
        ("<?xml version='1.0' encoding=\"koi8-r\"?><a>Привет</a>", "koi8-r"), ("<meta charset=gb2312>朱镕基", "gbk"),
        ("\\usepackage[latin1]{inputenc} è", "latin-1"), ("<meta charset=iso-8859-1>“è”", "cp1252"),
        ("<meta charset=utf-8>Größe", "cp1252"),
    ],
)  # fmt: skip
def test_text_is_what_was_written(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Příliš žluťoučký kůň", "cp1250"), ("Привет", "koi8-r"), ("très à la mode", "cp1252"), ("漢字", "euc-jp"),
        ("Die Geräte werden größer", "cp850"), ("Die Geräte werden größer", "mac_roman"),
        ("<meta charset=nonsense>Привет", "cp1251"), ("<meta charset=hex>è", "cp1252"),
        ("<meta charset=utf-16>è", "cp1252"),
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_refused(text: str, encoding: str) -> None:
    with pytest.raises(ValueError, match="save it as UTF-8"):
        decode(text.encode(encoding))


def test_binary_data_is_called_so() -> None:
    with pytest.raises(ValueError, match="binary data"):
        decode(b"\x00\x01\xff\xff\x00")


def test_a_broken_character_among_many_does_not_cost_the_file() -> None:
    assert decode("é".encode() * 50 + b"\xff") == "é" * 50 + "\ufffd"


def test_the_copy_declares_what_it_is() -> None:
    page = "<head><title>Größe</title><meta charset='iso-8859-1'></head>"
    assert as_utf8(page.encode("latin-1")) == page.replace("iso-8859-1", "utf-8").encode()
    assert as_utf8(page.encode()) == page.encode(), "UTF-8 stays as it is, whatever it declares"
