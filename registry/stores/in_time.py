"""Steps of an asynchronous iterator, each waited for so long and no longer.

obstore's own calls end when the library thinks so, and Ctrl-C waits for that too. A server whose
every page is empty and names a next one would be asked for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import TypeVar

Item = TypeVar("Item")


def in_time(items: AsyncIterator[Item], seconds: float) -> Iterator[Item]:
    """Each of *items*. TimeoutError where one takes longer than *seconds*; it is given up then."""

    async def step() -> Item:
        return await asyncio.wait_for(anext(items), seconds)

    while True:
        future = asyncio.run_coroutine_threadsafe(step(), _loop())
        try:
            item = future.result()
        except StopAsyncIteration:
            return
        finally:
            future.cancel()  # of an interrupted wait
        yield item


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for the process, in a thread of its own, so that callers may have theirs running."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="in-time", daemon=True).start()
    return loop
