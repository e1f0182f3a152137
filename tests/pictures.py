"""Pictures of words made on the spot, as a PNG and as a scanned PDF, in letters of straight lines that OCR reads."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from pdfs import pdf_file

_LETTERS = {
    "E": ("#####", "#....", "#....", "####.", "#....", "#....", "#####"),
    "F": ("#####", "#....", "#....", "####.", "#....", "#....", "#...."),
    "H": ("#...#", "#...#", "#...#", "#####", "#...#", "#...#", "#...#"),
    "I": ("..#..",) * 7,
    "L": (*("#....",) * 6, "#####"),
    "T": ("#####", *("..#..",) * 6),
    " ": (".....",) * 7,
}
_SCALE, _MARGIN = 6, 6


def _pixels(words: str) -> list[bytes]:
    """Rows of grey values, dark on light."""
    lines = ["..".join(_LETTERS[letter][row] for letter in words) for row in range(7)]
    blank = "." * (len(lines[0]) + 2 * _MARGIN)
    rows = [*[blank] * _MARGIN, *(f"{line:.^{len(blank)}}" for line in lines), *[blank] * _MARGIN]
    return [
        bytes(0 if dot == "#" else 255 for dot in row for _ in range(_SCALE)) for row in rows for _ in range(_SCALE)
    ]


def make_png(words: str) -> bytes:
    """A picture of these words, which may have the letters E, F, H, I, L and T."""
    rows = _pixels(words)
    header = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def make_scan(pages: Sequence[str], stamp: str = "") -> bytes:
    """A PDF with a picture of words on each page and no text, but for a stamp on each."""
    numbers = range(3, 3 + 3 * len(pages), 3)
    kids = b" ".join(b"%d 0 R" % number for number in numbers)
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages))]
    for number, words in zip(numbers, pages, strict=True):
        rows = _pixels(words)
        size = (len(rows[0]), len(rows))
        image = (
            b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceGray /BitsPerComponent 8" % size
        )
        paper = (300, 300 * size[1] // size[0])
        drawn = b"q %d 0 0 %d 0 0 cm /P Do Q BT /F 6 Tf 2 2 Td (%s) Tj ET" % (*paper, stamp.encode())
        used = b"/XObject << /P %d 0 R >> /Font << /F << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >>"
        placed = b"/Contents %d 0 R /Resources << %s >>" % (number + 1, used % (number + 2))
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] %s >>" % (*paper, placed))
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(drawn), drawn))
        grey = zlib.compress(b"".join(rows))
        objects.append(
            b"<< %s /BitsPerComponent 8 /Filter /FlateDecode /Length %d >>\nstream\n%s\nendstream"
            % (image, len(grey), grey)
        )
    return pdf_file(objects, b"")
