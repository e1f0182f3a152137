"""PDFs made on the spot: pages of lines, without any text (a scan), or encrypted with a password."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")


def make_pdf(pages: Sequence[Sequence[str]], title: str = "", encrypted: bool = False) -> bytes:
    """A PDF with one line of text after another on each page; a page of no lines has a rectangle instead."""
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", b""]
    objects.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    kids = []
    for lines in pages:
        content = _content(lines)
        objects.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content))
        fonts = b"/Resources << /Font << /F1 3 0 R >> >>"
        page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R %s >>"
        objects.append(page % (len(objects), fonts))
        kids.append(b"%d 0 R" % len(objects))
    objects[1] = b"<< /Type /Pages /Kids [%s] /Count %d >>" % (b" ".join(kids), len(kids))
    trailer = b""
    if title:
        objects.append(b"<< /Title (%s) >>" % title.encode("latin-1"))
        trailer += b" /Info %d 0 R" % len(objects)
    if encrypted:
        objects.append(_encryption())
        trailer += b" /Encrypt %d 0 R /ID [<%s> <%s>]" % (len(objects), b"00" * 16, b"00" * 16)
    return pdf_file(objects, trailer)


def _content(lines: Sequence[str]) -> bytes:
    if not lines:
        return b"100 100 200 200 re f"
    shown = [b"(%s) Tj T*" % line.encode("latin-1").translate(None, b"()\\") for line in lines]
    return b"BT /F1 10 Tf 14 TL 50 750 Td\n" + b"\n".join(shown) + b"\nET"


def pdf_file(objects: list[bytes], trailer: bytes) -> bytes:
    """A PDF of numbered objects, of which the first is the catalog."""
    data = b"%PDF-1.4\n"
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    xref = b"xref\n0 %d\n0000000000 65535 f \n%s" % (size, table)
    return data + xref + b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(data))


def _encryption() -> bytes:
    """Standard handler, revision 2 (PDF 1.7, 7.6.3), with the password "secret"; streams stay as they are."""
    password = (b"secret" + _PADDING)[:32]
    owner = _rc4(hashlib.md5(password).digest()[:5], password)
    key = hashlib.md5(password + owner + (0xFFFFFFFC).to_bytes(4, "little") + bytes(16)).digest()[:5]
    values = (owner.hex().encode(), _rc4(key, _PADDING).hex().encode())
    return b"<< /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>" % values


def _rc4(key: bytes, data: bytes) -> bytes:
    state = list(range(256))
    other = 0
    for index in range(256):
        other = (other + state[index] + key[index % len(key)]) % 256
        state[index], state[other] = state[other], state[index]
    out = bytearray()
    index = other = 0
    for byte in data:
        index = (index + 1) % 256
        other = (other + state[index]) % 256
        state[index], state[other] = state[other], state[index]
        out.append(byte ^ state[(state[index] + state[other]) % 256])
    return bytes(out)
