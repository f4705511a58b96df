"""Tensors worked on side by side: one tensor, one thread, the largest first.

Inside a tensor frames come in order, so digests are taken as bytes pass by; memory is a few frames
a thread. A thread that finds no further tensor helps the others: it hashes and writes a frame while
the next one is decoded (Lane). The heavy calls (zstd, sha256, kernels, pread) release the
interpreter lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
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


class Crew:
    """The threads of one ``run_jobs``, and which of them have nothing to do."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._spare = 0  # threads − jobs that are not done − steps under way

    def offer(self, step: Callable[[], None]) -> Future[None] | None:
        """*step* beside the caller's work, or None where every thread is busy."""

        def run() -> None:
            try:
                step()
            finally:
                self._free()

        with self._lock:
            if self._pool is None or self._spare <= 0:
                return None
            try:
                future = self._pool.submit(run)
            except RuntimeError:  # it is being shut down
                return None
            self._spare -= 1
            return future

    def _start(self, pool: ThreadPoolExecutor, threads: int, jobs: int) -> None:
        self._pool, self._spare = pool, threads - jobs

    def _free(self) -> None:
        with self._lock:
            self._spare += 1


class Lane:
    """Steps of one job, each after the one before; beside the job where a thread is spare.

    Belongs to the job's thread. What a step uses must stay as it is until the next ``run`` or
    ``wait`` returns.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._last: Future[None] | None = None

    def run(self, step: Callable[[], None]) -> bool:
        """False if *step* is done already; True if another thread took it."""
        self.wait()
        self._last = self._crew.offer(step)
        if self._last is None:
            step()
        return self._last is not None

    def wait(self) -> None:
        """Until all steps are done. Raises what the last one raised."""
        last, self._last = self._last, None
        if last is not None:
            try:
                last.result()
            except CancelledError:
                raise Cancelled("stopped") from None


def run_jobs(
    jobs: Sequence[Job[Result]],
    threads: int,
    progress: Progress,
    task: str,
    total: int,
    *,
    crew: Crew | None = None,
    in_order: bool = False,
) -> list[Result]:
    """Every job's result in the given order. The first error stops the others and is raised.

    An interrupt of the calling thread stops the workers at their next chunk. crew: for jobs that
    have lanes. in_order: they start in the given order, not the largest first.
    """
    stop, crew = threading.Event(), crew or Crew()

    def advance(n: int) -> None:
        if stop.is_set():
            raise Cancelled("stopped")
        progress.advance(n)

    def run(job: Job[Result]) -> Result:
        try:
            return job.run(advance)
        finally:
            crew._free()

    order = list(range(len(jobs)))
    if not in_order:
        order.sort(key=lambda i: (jobs[i].group, -jobs[i].size))
    progress.begin(task, total)
    try:
        with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="tensor") as pool:
            futures: dict[int, Future[Result]] = {}
            crew._start(pool, threads, len(jobs))
            try:
                for index in order:
                    futures[index] = pool.submit(run, jobs[index])
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
