"""A worker whose reader misbehaves on demand; ``Worker(module="bad_worker")`` starts it."""

import os
import sys
import time
from typing import Any

from vectune import extraction


def extract(path: str, source: str, ocr: bool) -> dict[str, Any]:
    if "crash" in path:
        os.abort()
    if "hang" in path:
        time.sleep(600)
    if "memory" in path:
        return {"text": "x" * len(bytearray(8 << 30)), "title": "", "pages": [], "headings": []}
    if "print" in path:
        sys.stdout.write("a library that prints\n")
        os.write(1, b"and native code that does\n")
    return {"text": f"{path} by {os.getpid()}", "title": "", "pages": [], "headings": []}


if __name__ == "__main__":
    extraction.extract = extract
    extraction.main()
