"""Tensors worked on side by side: one tensor, one thread, the largest first.

Inside a tensor work is sequential, so digests are taken as bytes pass by; memory is a few frames a
thread. The heavy calls (zstd, sha256, kernels, pread) release the interpreter lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

from paramdelta.errors import Cancelled
from registry.progress import Progress

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Job(Generic[Result]):
    """run: takes a callback for bytes done. size: bytes, to start the largest first. group: lower
    ones start first, so that jobs which read one file do so while it is in memory."""

    size: int
    run: Callable[[Callable[[int], None]], Result]
    group: int = 0


def run_jobs(
    jobs: Sequence[Job[Result]], threads: int, progress: Progress, task: str, total: int
) -> list[Result]:
    """Every job's result in the given order. The first error stops the others and is raised.

    An interrupt of the calling thread stops the workers at their next chunk.
    """
    stop = threading.Event()

    def advance(n: int) -> None:
        if stop.is_set():
            raise Cancelled("stopped")
        progress.advance(n)

    progress.begin(task, total)
    try:
        with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tensor") as pool:
            futures: dict[int, Future[Result]] = {}
            try:
                for index in sorted(range(len(jobs)), key=lambda i: (jobs[i].group, -jobs[i].size)):
                    futures[index] = pool.submit(jobs[index].run, advance)
                wait(futures.values(), return_when=FIRST_EXCEPTION)
            finally:
                stop.set() if _unfinished(futures) else None
                pool.shutdown(wait=True, cancel_futures=True)
            return _results(futures)
    finally:
        progress.end()


def _unfinished(futures: dict[int, Future[Result]]) -> bool:
    return any(not future.done() for future in futures.values())


def _results(futures: dict[int, Future[Result]]) -> list[Result]:
    errors = [
        error
        for future in futures.values()
        if not future.cancelled() and (error := future.exception()) is not None
    ]
    # what made the others stop, not their "stopped"
    for error in sorted(errors, key=lambda e: isinstance(e, Cancelled)):
        raise error
    return [futures[index].result() for index in range(len(futures))]
