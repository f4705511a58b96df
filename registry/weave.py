"""Several tensors worked on by one thread, a piece of each by turns: so they are hashed together.

A stream's digest waits for its own bytes, so one tensor feeds two or three streams (base, output,
blob). A processor with wide vectors hashes sixteen at nearly twice the speed (hashing.MANY); eight
tensors have as many. A task says with each piece what is to be hashed, and what to do then; memory
is some frames a tensor, as before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from paramdelta.hashing import hashes_many, update_pieces
from registry.jobs import Crew, Job, Lane
from registry.streams import Unhashed

Result = TypeVar("Result")
Advance = Callable[[int], None]
WIDTH = 8  # tensors at once


@dataclass(frozen=True, slots=True)
class Step:
    """What a piece leaves to do: streams to be hashed, and then *then*."""

    streams: Sequence[Unhashed]
    then: Callable[[], None]


# Yields steps, or None to wait until all of its steps are done. It is sent whether another thread
# does its last step now: then what that uses must stay as it is until the next one is yielded.
Steps = Generator[Step | None, bool, Result]


@dataclass(frozen=True, slots=True)
class Task(Generic[Result]):
    """size: bytes, to start the largest first."""

    size: int
    steps: Callable[[Advance], Steps[Result]]


def alone(task: Task[Result], crew: Crew) -> Job[list[Result]]:
    """A task as a job of its own."""
    return Job(task.size, lambda advance: _Weaver(deque([task]), 1, crew).run(advance))


def woven(tasks: Sequence[Task[Result]], threads: int, crew: Crew) -> list[Job[list[Result]]]:
    """A job for each thread, which share the tasks among them, the largest first."""
    waiting = deque(sorted(tasks, key=lambda task: -task.size))
    width = min(WIDTH, len(tasks) // threads) if hashes_many() else 1
    if width < 2:
        return [alone(task, crew) for task in tasks]
    size, rest = divmod(sum(task.size for task in tasks), threads)
    weavers = [_Weaver(waiting, width, crew) for _ in range(threads)]
    return [Job(size + rest * (i == 0), weaver.run) for i, weaver in enumerate(weavers)]


class _Weaver(Generic[Result]):
    """Belongs to one thread; *waiting* to all."""

    def __init__(self, waiting: deque[Task[Result]], width: int, crew: Crew) -> None:
        self._waiting, self._width = waiting, width
        self._lane = Lane(crew)
        self._at_work: list[Steps[Result]] = []
        self._begun: set[Steps[Result]] = set()
        self._found: list[Result] = []

    def run(self, advance: Advance) -> list[Result]:
        taken = False
        try:
            while self._take_one(advance) or self._at_work:
                found = [self._next(steps, taken) for steps in list(self._at_work)]
                left = [step for step in found if step is not None]
                taken = self._lane.run(partial(_do, left))
        finally:
            try:
                self._lane.wait()
            finally:
                for steps in self._at_work:
                    steps.close()
        return self._found

    def _take_one(self, advance: Advance) -> bool:
        """One more task, where there is room: one a turn, so that the threads share the largest."""
        if len(self._at_work) >= self._width:
            return False
        try:
            task = self._waiting.popleft()
        except IndexError:
            return False
        self._at_work.append(task.steps(advance))
        return True

    def _next(self, steps: Steps[Result], taken: bool) -> Step | None:
        """The next step; None where the task has come to its end."""
        try:
            step = steps.send(taken) if steps in self._begun else next(steps)
            self._begun.add(steps)
            while step is None:
                self._lane.wait()
                step = steps.send(False)
            return step
        except StopIteration as end:
            self._found.append(end.value)
        except BaseException:
            self._at_work.remove(steps)
            raise
        self._at_work.remove(steps)
        return None


def _do(steps: Sequence[Step]) -> None:
    update_pieces([stream for step in steps for stream in step.streams])
    for step in steps:
        step.then()
