"""Any commands in any order, against a model of plain dicts: the registry never says anything else.

Two registries, a store between them, and a catalog that may be lost at any time.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from support.checkpoints import tensor, write_checkpoint
from support.registries import files_of
from support.s3_server import S3Server

from paramdelta.errors import ConflictError, NotFoundError
from registry.artifacts import Artifacts
from registry.config import Settings
from registry.registry import Registry
from registry.stores.memory import MemoryStore

NAMES = st.sampled_from(["x", "team/y"])
POSTS = st.sampled_from([1, 2])
VERSIONS = st.integers(1, 2)
WHO = st.sampled_from(["ann", "bob"])
Releases = dict[tuple[str, int], int]  # (name, version) → the post it was made from


class Commands(RuleBasedStateMachine):
    """kind: where the registries keep their artifacts. between: the address of the common store."""

    kind: str = "local"
    between: Path | str = ""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        base = {"a": tensor("BF16", [0x3F80, 0x4000], (2,))}
        self.base = str(write_checkpoint(self.folder / "base", base))
        self.posts = {
            n: str(write_checkpoint(self.folder / f"post{n}",
                                    {"a": tensor("BF16", [0x3F80 + n, 0x4000], (2,))},
                                    files={"n.txt": str(n)}))
            for n in (1, 2)
        }  # fmt: skip
        self.shared = str(self.between) or str(self.folder / "shared")
        self.stores = {who: MemoryStore() for who in ("ann", "bob")}
        self.registries = {who: self._open(who) for who in ("ann", "bob")}
        self.releases: dict[str, Releases] = {"ann": {}, "bob": {}}
        self.yanked: dict[str, set[tuple[str, int]]] = {"ann": set(), "bob": set()}
        self.aliases: dict[str, dict[tuple[str, str], int]] = {"ann": {}, "bob": {}}
        self.tags: dict[str, dict[tuple[str, int], dict[str, str]]] = {"ann": {}, "bob": {}}
        self.bases: dict[str, set[str]] = {"ann": set(), "bob": set()}
        self.there: Releases = {}

    def _open(self, who: str) -> Registry:
        found = Registry.open(Settings.resolve(self.folder / who, threads=1, env={}))
        if self.kind == "memory":
            found._artifacts = Artifacts(self.stores[who])
        return found

    def teardown(self) -> None:
        for registry in self.registries.values():
            registry.close()
        shutil.rmtree(self.folder)

    def latest(self, who: str, name: str) -> int | None:
        left = [v for n, v in self.releases[who] if n == name and (n, v) not in self.yanked[who]]
        return max(left, default=None)

    @initialize(posts=st.lists(POSTS, min_size=2, max_size=2))
    def begin(self, posts: list[int]) -> None:
        self.publish("ann", "x", posts[0])
        self.publish("bob", "x", posts[1])

    # -- commands -------------------------------------------------------------------------

    @rule(who=WHO, name=NAMES, post=POSTS)
    def publish(self, who: str, name: str, post: int) -> None:
        held = self.releases[who]
        same = [v for (n, v), p in held.items() if n == name and p == post]
        found = self.registries[who].publish(name, self.base, self.posts[post])
        expected = min(same) if same else max([v for n, v in held if n == name], default=0) + 1
        assert (found.release.version, found.created) == (expected, not same)
        held.setdefault((name, expected), post)
        self.tags[who].setdefault((name, expected), {})
        self.bases[who].add("base") if not self.bases[who] else None

    @rule(who=WHO)
    def add_base(self, who: str) -> None:
        self.registries[who].add_base(self.base, "mine")
        self.bases[who].add("mine")

    @rule(who=WHO, name=st.sampled_from(["base", "mine"]))
    def remove_base(self, who: str, name: str) -> None:
        if name in self.bases[who]:
            self.registries[who].remove_base(name)
            self.bases[who].remove(name)
        else:
            with pytest.raises(NotFoundError):
                self.registries[who].remove_base(name)

    @rule(who=WHO, name=NAMES, version=VERSIONS)
    def alias(self, who: str, name: str, version: int) -> None:
        if (name, version) in self.releases[who]:
            self.registries[who].set_alias(f"{name}@stable", version)
            self.aliases[who][name, "stable"] = version
        else:
            with pytest.raises(NotFoundError):
                self.registries[who].set_alias(f"{name}@stable", version)

    @rule(who=WHO, name=NAMES)
    def yank(self, who: str, name: str) -> None:
        version = self.latest(who, name)
        if version is None:
            with pytest.raises(NotFoundError):
                self.registries[who].yank(name, "worse")
        else:
            assert self.registries[who].yank(name, "worse").release.version == version
            self.yanked[who].add((name, version))

    @rule(who=WHO, name=NAMES, version=VERSIONS, value=st.sampled_from(["de", "en"]))
    def tag(self, who: str, name: str, version: int, value: str) -> None:
        if (name, version) in self.releases[who]:
            self.registries[who].tag(f"{name}@{version}", {"lang": value})
            self.tags[who][name, version] = {"lang": value}

    @rule(who=WHO, data=st.data())
    def push(self, who: str, data: st.DataObject) -> None:
        self.push_one(who, data.draw(st.sampled_from(sorted(self.releases[who]))))

    @rule(who=WHO)
    def push_all(self, who: str) -> None:
        for key in sorted(self.releases[who]):
            self.push_one(who, key)

    def push_one(self, who: str, key: tuple[str, int]) -> None:
        text, post = f"{key[0]}@{key[1]}", self.releases[who][key]
        if self.there.get(key, post) != post:
            with pytest.raises(ConflictError):
                self.registries[who].push([text], self.shared)
        else:
            self.registries[who].push([text], self.shared)
            self.there[key] = post

    @precondition(lambda self: self.there)
    @rule(who=WHO)
    def pull_all(self, who: str) -> None:
        for key, post in sorted(self.there.items()):
            text = f"{key[0]}@{key[1]}"
            if self.releases[who].get(key, post) != post:
                with pytest.raises(ConflictError):
                    self.registries[who].pull([text], self.shared)
            else:
                self.registries[who].pull([text], self.shared)
                self.releases[who][key] = post
                self.tags[who].setdefault(key, {})

    @rule(who=WHO)
    def lose_the_catalog(self, who: str) -> None:
        """Aliases, yanks, bases and changed tags are the catalog's alone; releases come back."""
        self.registries[who].close()
        for path in (self.folder / who).glob("catalog.db*"):
            path.unlink()
        self.registries[who] = self._open(who)
        assert not self.registries[who].reindex().problems
        self.yanked[who], self.aliases[who], self.bases[who] = set(), {}, set()
        self.tags[who] = {key: {} for key in self.releases[who]}

    @rule(who=WHO, name=NAMES)
    def restore(self, who: str, name: str) -> None:
        version = self.latest(who, name)
        if version is None:
            return
        out = self.folder / "out"
        self.registries[who].restore(name, out, base=self.base, force=True)
        assert files_of(out) == files_of(Path(self.posts[self.releases[who][name, version]]))

    @rule(who=WHO, name=NAMES)
    def apply(self, who: str, name: str) -> None:
        """A delta on its own base is its post."""
        version = self.latest(who, name)
        if version is None:
            return
        out, registry = self.folder / "out", self.registries[who]
        registry.apply(registry.plan([name], self.base), out, force=True)
        post = Path(self.posts[self.releases[who][name, version]])
        weights = "model.safetensors"
        assert files_of(out)[weights] == files_of(post)[weights]

    # -- what must hold -------------------------------------------------------------------

    @invariant()
    def the_catalog_says_what_the_model_says(self) -> None:
        for who, registry in self.registries.items():
            held = self.releases[who]
            everything = registry.catalog.all_releases()
            assert {(r.name, r.version) for r in everything} == set(held)
            digests: dict[int, set[str]] = {}
            for release in everything:
                key = (release.name, release.version)
                assert (release.yanked is not None) == (key in self.yanked[who])
                assert dict(release.tags) == self.tags[who][key]
                digests.setdefault(held[key], set()).add(release.digest)
            assert all(len(found) == 1 for found in digests.values())
            shown = {view.release.name: view.release.version for view in registry.releases()}
            latest = {name: self.latest(who, name) for name, _ in held}
            assert shown == {name: version for name, version in latest.items() if version}
            for (name, alias), version in self.aliases[who].items():
                assert registry.catalog.get_release(name, alias).version == version
            assert {view.base.name for view in registry.bases()} == self.bases[who]

    @invariant()
    def everything_is_whole(self) -> None:
        for registry in self.registries.values():
            assert registry.verify(all=True).ok


def machine(kind: str) -> type[Commands]:
    return type("Machine", (Commands,), {"kind": kind})


def play(chosen: type[Commands], examples: int, steps: int) -> None:
    few = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    run(chosen, settings=few)


SIZES = [(5, 20), pytest.param((100, 50), marks=pytest.mark.slow)]


@pytest.fixture(params=["local", "memory", "s3"])
def chosen(request: pytest.FixtureRequest) -> Iterator[type[Commands]]:
    """The same S3 prefix for all examples would mix them: each gets its own."""
    if request.param != "s3":
        yield machine(request.param)
        return
    request.getfixturevalue("remotes")
    moto: S3Server = request.getfixturevalue("moto")

    class OnS3(Commands):
        def __init__(self) -> None:
            self.between = moto.address()
            super().__init__()

    yield OnS3


@pytest.mark.parametrize("size", SIZES)
def test_commands_in_any_order_do_what_the_model_says(
    chosen: type[Commands], size: tuple[int, int]
) -> None:
    play(chosen, *size)
