"""The commands that faults are tried on: what goes before, the command, and what must hold after.

A case lives in one folder, so that the folder can be copied, cut off and compared. Checkpoints lie
outside of it. ``check`` is for any state that a fault may have left: nothing half is visible,
nothing that was there is lost, and the command run again comes to the same end.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramdelta.digest import Digest
from paramdelta.errors import StorageError
from paramdelta.problem import Problem
from paramdelta.sketch_groups import GroupSketches
from registry.catalog import Catalog
from registry.config import Settings
from registry.registry import Registry
from support import old_catalog
from support.checkpoints import tensor, write_checkpoint
from support.registries import files_of

Outcome = Any  # what a command made, to compare: digests, versions, file hashes


@dataclass(frozen=True)
class Models:
    """base, first and second: folders of checkpoints."""

    base: str
    first: str
    second: str

    @classmethod
    def write(cls, folder: Path) -> Models:
        """Two tensors: one that needs a patch, one that needs none."""
        base = {"a": tensor("BF16", [0x3F80, 0x4000], (2,)), "b": tensor("F32", [7, 9], (2,))}
        first = {"a": tensor("BF16", [0x7FC1, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
        second = {"a": tensor("BF16", [0x3F81, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
        return cls(
            str(write_checkpoint(folder / "base", base)),
            str(write_checkpoint(folder / "first", first, files={"x.txt": "x"})),
            str(write_checkpoint(folder / "second", second, files={"x.txt": "x"})),
        )


def opened(folder: Path, catalog: str | None = None) -> Registry:
    return Registry.open(Settings.resolve(folder, catalog=catalog, threads=1, env={}))


@dataclass(frozen=True)
class Case:
    """prepare: makes the folder, before any fault. act: the command; it may be run again.

    visible: looks at a folder that a fault may have left, asserts that what is visible is whole,
    and says whether the command's own work is.
    """

    name: str
    prepare: Callable[[Path, Models], None]
    act: Callable[[Path, Models], Outcome]
    visible: Callable[[Path, Models, Outcome], bool]

    def expect(self, folder: Path, models: Models) -> Outcome:
        """What it does where nothing fails."""
        self.start(folder, models)
        return self.act(folder, models)

    def start(self, folder: Path, models: Models) -> None:
        folder.mkdir(parents=True)
        self.prepare(folder, models)

    def check(self, folder: Path, models: Models, expected: Outcome, *, done: bool) -> None:
        """done: the command has told its success; its work must be there."""
        there = self.visible(folder, models, expected)
        assert there or not done, "told as done, and lost"
        assert self.act(folder, models) == expected
        assert self.visible(folder, models, expected)


def essence(folder: Path) -> str:
    """Equal for folders that differ only in times and in temporary files, which nothing reads: then
    they need one check, not two. Of a catalog its rows are counted."""
    found = []
    for path in sorted(folder.rglob("*")):
        at = _TEMPORARY.sub("…", path.relative_to(folder).as_posix())
        if "…" in at and path.suffix != ".bak":
            found.append(at.partition("…")[0])
        elif path.is_dir() or path.name.endswith(("-wal", "-shm")):
            found.append(at)
        elif path.suffix in (".db", ".bak", ".partial"):
            found.append(f"{at} {_rows(path)}")
        else:
            timed = "/releases/" in at  # a record holds its time
            found.append(f"{at} {path.stat().st_size if timed else path.read_bytes()!r}")
    return hashlib.sha256("\n".join(sorted(set(found))).encode()).hexdigest()


_TEMPORARY = re.compile(r"(?<=tmp/)[0-9a-f]{32}$|partial-[0-9a-f]{16}|\d{8}T\d{12}")


def _rows(path: Path) -> str:
    try:
        with closing(sqlite3.connect(path)) as connection:
            asked = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
            names = [name for (name,) in connection.execute(asked)]
            count = "SELECT count(*) FROM {}"
            return str([(n, *connection.execute(count.format(n)).fetchone()) for n in names])
    except sqlite3.DatabaseError as error:
        return str(error)


# -- publish ------------------------------------------------------------------------------


def _nothing(folder: Path, models: Models) -> None:
    return None


def _empty(folder: Path, models: Models) -> None:
    """A catalog; making one is what "base add" begins with."""
    opened(folder / "registry").close()


def _publish(folder: Path, post: str, models: Models) -> Outcome:
    with opened(folder / "registry") as registry:
        found = registry.publish("x", models.base, post, author="ann")
        _told(found.problems)
        return found.release.version, found.release.digest


def _told(problems: Sequence[Problem]) -> None:
    """A warning that the sketches by layer were not stored tells of a fault as an error does."""
    for problem in problems:
        if problem.subject == "sketches":
            raise StorageError(problem.reason, where=problem.subject, remedy=problem.remedy)


def _publish_first(folder: Path, models: Models) -> Outcome:
    return _publish(folder, models.first, models)


def _publish_second(folder: Path, models: Models) -> Outcome:
    return _publish(folder, models.second, models)


def _published(folder: Path, models: Models, expected: Outcome) -> bool:
    """At most that release, whole; a second one never without the first."""
    if not (folder / "registry").exists():
        return False
    with opened(folder / "registry") as registry:
        found = whole(registry)
    assert found <= {expected[0], 1}
    assert 1 in found or expected[0] == 1
    return expected[0] in found


def whole(registry: Registry) -> set[int]:
    """The versions of ``x`` that a catalog shows, after proof of all that store and catalog show.

    What the store shows and the catalog does not yet is catalogued first: it must be whole too.
    """
    before = registry.catalog.all_releases()
    if not (Path(registry.settings.store) / "releases").exists():
        assert not before
        return set()
    made_again = registry.reindex()
    assert not made_again.problems
    verified = registry.verify(all=True, deep=True)
    assert verified.ok, verified.problems
    return {release.version for release in before}


def _catalog(folder: Path) -> str:
    """In a folder of its own, which must be made too."""
    return f"sqlite:///{folder / 'team/catalogs/catalog.db'}"


def _add_base(folder: Path, models: Models) -> Outcome:
    with opened(folder / "registry", _catalog(folder)) as registry:
        found = registry.add_base(models.base, "b")
        _told(found.problems)
        return found.base.content_digest


def _added(folder: Path, models: Models, expected: Outcome) -> bool:
    """With its sketches by layer; it may lack them where the command has warned of that."""
    if not (folder / "team/catalogs").exists():
        return False
    with opened(folder / "registry", _catalog(folder)) as registry:
        found = [base.content_digest for base in registry.catalog.list_bases()]
        assert found in ([], [expected])
        data = registry.artifacts.read_sketches(Digest(expected)) if found else None
        if data is not None:
            GroupSketches.from_bytes(data, Digest(expected), "sketches")
    return data is not None


# -- outputs ------------------------------------------------------------------------------


def _apply(folder: Path, models: Models) -> Outcome:
    out = folder / "deep/out"
    if out.exists():
        shutil.rmtree(out)
    with opened(folder / "registry") as registry:
        registry.apply(registry.plan(["x:0.5"], models.base), out)
    return files_of(out)


def _apply_over(folder: Path, models: Models) -> Outcome:
    out = folder / "out"
    with opened(folder / "registry") as registry:
        registry.apply(registry.plan(["x:0.5"], models.base), out, force=True)
    _no_leavings(folder)
    return files_of(out)


def _with_old_output(folder: Path, models: Models) -> None:
    _publish_first(folder, models)
    with opened(folder / "registry") as registry:
        registry.restore("x", folder / "out", base=models.base)


def _restore(folder: Path, models: Models) -> Outcome:
    out = folder / "deep/out"
    if out.exists():
        shutil.rmtree(out)
    with opened(folder / "registry") as registry:
        registry.restore("x", out, base=models.base)
    _no_leavings(out.parent)
    return files_of(out)


def _output(at: str) -> Callable[[Path, Models, Outcome], bool]:
    def visible(folder: Path, models: Models, expected: Outcome) -> bool:
        with opened(folder / "registry") as registry:
            assert whole(registry) == {1}
        out = folder / at
        if not out.exists():
            return False
        assert files_of(out) == expected
        return True

    return visible


def _replaced(folder: Path, models: Models, expected: Outcome) -> bool:
    """The old output or the new one, never neither and never a mixture."""
    with opened(folder / "registry") as registry:
        assert whole(registry) == {1}
    found = files_of(folder / "out")
    assert found in (expected, files_of(Path(models.first)))
    return found == expected


def _no_leavings(folder: Path) -> None:
    assert not list(folder.glob(".out*")), "a killed run's leavings were not swept"


# -- other stores -------------------------------------------------------------------------


def _push(folder: Path, models: Models) -> Outcome:
    with opened(folder / "registry") as registry:
        registry.push(["x@1"], str(folder / "other"))
    return _kept(folder / "other")


def _ready_to_push(folder: Path, models: Models) -> None:
    """With the catalog of one who will look into the other store."""
    _publish_first(folder, models)
    opened(folder / "fresh").close()


def _kept(store: Path) -> dict[str, str]:
    """Objects of a store; temporary files are nobody's, a guest's mark goes when it is old, and a
    record's bytes hold the time."""
    return {
        path: "" if path.startswith("releases/") else digest
        for path, digest in files_of(store).items()
        if not path.startswith(("tmp/", "guests/"))
    }


def _pushed(folder: Path, models: Models, expected: Outcome) -> bool:
    """Every release that the other store shows is whole, whoever looks."""
    store = folder / "other"
    if not store.exists():
        return False
    fresh = shutil.copytree(folder / "fresh", folder / "looking")
    settings = Settings.resolve(fresh, store=str(store), threads=1, env={})
    with Registry.open(settings) as registry:
        if (store / "releases").exists():
            assert not registry.reindex().problems
            verified = registry.verify(all=True, deep=True)
            assert verified.ok, verified.problems
    shutil.rmtree(fresh)
    return _kept(store) == expected


def _ready_to_pull(folder: Path, models: Models) -> None:
    _publish_first(folder / "origin", models)
    opened(folder / "registry").close()


def _pull(folder: Path, models: Models) -> Outcome:
    with opened(folder / "registry") as registry:
        registry.pull(["x@1"], str(folder / "origin/registry/store"))
        found = registry.catalog.releases("x")
        return [(release.version, release.digest) for release in found]


def _pulled(folder: Path, models: Models, expected: Outcome) -> bool:
    with opened(folder / "registry") as registry:
        return whole(registry) == {1}


# -- the catalog --------------------------------------------------------------------------


def _old(folder: Path, models: Models) -> None:
    old_catalog.fill(f"sqlite:///{folder / 'catalog.db'}", deltas=1, versions=3)


def _migrate(folder: Path, models: Models) -> Outcome:
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
    try:
        return catalog.revision(), catalog.all_releases(), catalog.list_bases()
    finally:
        catalog.close()


def _migrated(folder: Path, models: Models, expected: Outcome) -> bool:
    """The old schema or the new one, and all rows; every copy is a whole catalog of the old one."""
    found = old_catalog.revision(folder / "catalog.db")
    assert found in (old_catalog.REVISION, expected[0])
    assert old_catalog.count(folder / "catalog.db") == 3
    copies = list(folder.glob("*.bak"))
    assert copies or found == old_catalog.REVISION
    for copy in copies:
        assert old_catalog.revision(copy) == old_catalog.REVISION
        assert old_catalog.count(copy) == 3
    return found == expected[0]


CASES = {
    case.name: case
    for case in (
        Case("base add", _nothing, _add_base, _added),
        Case("publish", _empty, _publish_first, _published),
        Case("publish again", _publish_first, _publish_second, _published),
        Case("apply", _publish_first, _apply, _output("deep/out")),
        Case("apply over", _with_old_output, _apply_over, _replaced),
        Case("restore", _publish_first, _restore, _output("deep/out")),
        Case("push", _ready_to_push, _push, _pushed),
        Case("pull", _ready_to_pull, _pull, _pulled),
        Case("migrate", _old, _migrate, _migrated),
    )
}
