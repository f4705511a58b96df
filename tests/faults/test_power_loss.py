"""Invariants 2, 3 and 7 under power loss: what was not synced is gone, and nothing half is seen.

A command runs once, and before each of its changes to files and database the disk's worst state is
taken down (``support.disk``: for several ways of losing what was not synced). Every different state
is then a folder of its own, in which the registry must hold what it says, and the command run again
must come to the same end. That an fsync is needed is proved by leaving it out: for every place in
the code that syncs there is a state in which the check fails.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import disk
from support.disk import Disk, Tree
from support.fault_cases import CASES, Case, Models, essence
from support.file_calls import watched

from paramdelta import durable
from registry.stores.local import LocalStore

PRODUCT = Path(durable.__file__).parents[1]
PACKAGES = ("paramdelta", "stores", "catalog")  # those above them ask for no sync of their own
SYNCS = ("fsync", "fdatasync")
CLEANS = ("unlink", "remove", "rmdir")


class Died(BaseException):
    """The process is dead. What its clean-up tries to remove stays."""


def place() -> str:
    """Where the product asks for a sync: the line, and who called for it, as far as it tells two
    needs apart."""
    names: list[str] = []
    frame: Any = sys._getframe(1)
    others = 0
    while frame and others < 2:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PRODUCT) and path.parts[-2] in (
            "paramdelta",
            "registry",
            "stores",
            "catalog",
        ):
            names.append(f"{path.stem}.{frame.f_code.co_name}:{frame.f_lineno}")
            others += path.stem != "durable"
        frame = frame.f_back
    assert names, "a sync that is not of the product"
    return " < ".join(names)


@contextlib.contextmanager
def recorded(
    watching: Disk, each: Callable[[str], bool | None], left_out: str = ""
) -> Iterator[set[str]]:
    """The places that sync, as they come up. left_out: the one whose syncs do not happen."""
    places: set[str] = set()

    def before(name: str, arguments: tuple[Any, ...]) -> bool | None:
        skip = each(name)
        if name in SYNCS:
            at = place()
            places.add(at)
            if at != left_out:
                watching.synced(arguments[0])
        return skip

    with watched(before, sync=False):
        yield places


State = tuple[Tree, bool]  # what is left; whether the command had told its success


def states(
    case: Case, folder: Path, models: Models, left_out: str = ""
) -> tuple[list[State], set[str]]:
    """Every different state that a power loss during the command may leave, the last ones first,
    and the places that sync."""
    found: dict[str, State] = {}
    case.start(folder, models)
    with contextlib.closing(Disk(folder)) as watching:

        def keep(done: bool) -> None:
            for loss in disk.LOSSES:
                tree = watching.image(loss)
                found[f"{disk.digest_of(tree)} {done}"] = (tree, done)

        with recorded(watching, lambda name: keep(False), left_out) as places:
            case.act(folder, models)
        keep(True)
    return list(reversed(found.values())), places


def killed_first(
    case: Case, folder: Path, models: Models, at: int, left_out: str = ""
) -> State | None:
    """What a power loss leaves after the command was killed before its *at*-th sync, and was then
    run again to its end. None if there are fewer."""
    case.start(folder, models)
    with contextlib.closing(Disk(folder)) as watching:
        left = at

        def die(name: str) -> bool:
            nonlocal left
            if not left and name in CLEANS:
                return True
            left -= name in SYNCS and left > 0
            if not left:
                raise Died
            return False

        with contextlib.suppress(Died), recorded(watching, die, left_out):
            case.act(folder, models)
        if left:
            return None
        with recorded(watching, lambda name: None, left_out):
            case.act(folder, models)
        return watching.image(), True


class Bench:
    """Runs and checks one case in folders that it makes and removes."""

    def __init__(self, name: str, folder: Path) -> None:
        self.case, self.folder = CASES[name], folder
        self.models = Models.write(folder / "models")
        self.seen: set[tuple[str, bool]] = set()
        self.expected = self.case.expect(folder / "whole", self.models)

    def check(self, state: State) -> None:
        """States that are the same but for times and temporary names are checked once."""
        tree, done = state
        image = disk.write(tree, self.folder / "image")
        try:
            if (known := (essence(image), done)) in self.seen:
                return
            self.case.check(image, self.models, self.expected, done=done)
            self.seen.add(known)
        finally:
            shutil.rmtree(image)

    def states(self, left_out: str = "") -> tuple[list[State], set[str]]:
        try:
            return states(self.case, self.folder / "run", self.models, left_out)
        finally:
            shutil.rmtree(self.folder / "run")

    def killed_first(self, left_out: str = "") -> Iterator[State]:
        for at in itertools.count(1):
            state = killed_first(self.case, self.folder / "run", self.models, at, left_out)
            shutil.rmtree(self.folder / "run")
            if state is None:
                return
            yield state

    def is_missed(self, place: str) -> bool:
        """Whether a check fails where the syncs of *place* do not happen. What is seen there
        without them too, a check has passed before."""
        for state in itertools.chain(self.states(place)[0], self.killed_first(place)):
            try:
                self.check(state)
            except Exception:
                return True
        return False


# what the others share their code with; `make soak` runs all
SHORT = ("base add", "publish", "apply", "apply over", "migrate")


@pytest.fixture(
    params=[pytest.param(n, marks=[] if n in SHORT else [pytest.mark.slow]) for n in CASES]
)
def bench(request: pytest.FixtureRequest, scratch: Path) -> Bench:
    return Bench(request.param, scratch)


def test_a_power_loss_at_any_instant_leaves_nothing_half_and_loses_nothing_told(
    bench: Bench,
) -> None:
    found, _ = bench.states()
    assert {done for _, done in found} == {True, False}
    for state in found:
        bench.check(state)


def test_what_a_killed_run_left_unsynced_is_synced_by_the_next(bench: Bench) -> None:
    """Else the next one would build on names that a power loss takes away."""
    count = 0
    for count, state in enumerate(bench.killed_first(), 1):  # noqa: B007
        bench.check(state)
    assert count


# cases that between them need every place that syncs, and what each does not need: an output its
# store's folder, a release the sketches by layer, which can be made again
NEEDING = {"base add": "", "publish": "put_sketches", "apply": "local.__init__", "migrate": ""}


@pytest.mark.parametrize("bench", NEEDING, indirect=True)
def test_every_sync_is_needed(bench: Bench) -> None:
    """Left out, each by itself, it is missed: a power loss then takes away what was told."""
    _, places = bench.states()
    spared = NEEDING[bench.case.name]
    for place in sorted(places):
        if not (spared and spared in place):
            assert bench.is_missed(place), f"nobody misses the sync in {place}"


def test_no_other_place_syncs(scratch: Path) -> None:
    """Else the test above would not know of it. Lines count, so that two in one function do."""
    lines = {name: set(map(line, Bench(name, scratch / name).states()[1])) for name in CASES}
    others = set().union(*lines.values()) - set().union(*(lines[name] for name in NEEDING))
    # what is deleted and comes back is garbage once more, and a guest's mark ends by its age
    assert {place.partition(":")[0] for place in others} <= {"local.delete"}


def line(place: str) -> str:
    """Which asks for the sync, whoever called it."""
    return next(name for name in place.split(" < ") if not name.startswith("durable."))


FINDS: dict[str, Callable[[LocalStore], object]] = {
    "opened": lambda store: store.open("blobs/x").close(),
    "looked for": lambda store: store.stat_many(["blobs/x"]),
    "taken": lambda store: store.create("blobs/x", b"1"),
}


@pytest.mark.parametrize("how", FINDS)
def test_what_a_store_finds_is_safe_after_the_next_flush(how: str, scratch: Path) -> None:
    """A publish that goes on from a journal reads blobs that a killed one made, and builds on."""
    (scratch / "store").mkdir()
    with contextlib.closing(Disk(scratch)) as watching, recorded(watching, lambda name: None):
        with LocalStore(scratch / "store").stage() as staged:
            staged.write(b"1")
            staged.commit("blobs/x")  # and its process is killed
        assert "store/blobs/x" not in watching.image()
        store = LocalStore(scratch / "store")
        FINDS[how](store)
        store.flush()
        assert watching.image()["store/blobs/x"] == b"1"
