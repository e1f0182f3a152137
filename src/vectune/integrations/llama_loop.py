"""One event loop in a thread of its own, for LlamaIndex's async methods.

Clients keep connections that belong to the loop they were opened in, so that a loop a call would break the second call;
and a notebook's own loop is already running.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from functools import lru_cache
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")


@lru_cache(maxsize=1)
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop; it runs as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="vectune-llama-index", daemon=True).start()
    return loop


def iterate(items: AsyncIterator[Item]) -> Iterator[Item]:
    """The items of an async iterator, as they come; stop taking them and what is under way is cancelled."""
    arrived: SimpleQueue[tuple[Item] | BaseException | None] = SimpleQueue()

    async def drain() -> None:
        try:
            async for item in items:
                arrived.put((item,))
            arrived.put(None)
        except BaseException as error:
            arrived.put(error)
            raise

    future = asyncio.run_coroutine_threadsafe(drain(), event_loop())
    try:
        while (got := arrived.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got[0]
    finally:
        future.cancel()
        try:
            future.exception()
        except (CancelledError, asyncio.CancelledError):
            pass
