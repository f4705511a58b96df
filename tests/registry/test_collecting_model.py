"""A model of docs/adr/0020: one object, and every order in which publishers, guests, a reindex and
collections may take their steps, be killed, or lose a lease or mark to time.

A step is one transition, as in the product it is one transaction or one call of the store. What may
never be: a record or row whose object is gone. Each guard of the protocol is also left out, to see
that the model notices. That the steps of the code are these is what test_collecting_races is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

RETRIES = 1  # of a publisher whose lease was lost
ENDED = -1


@dataclass(frozen=True)
class World:
    """stored: the object. record: of a release that needs it, in the store. row: in the catalog.
    condemned: by which collection. told: a reindex said that the object was missing."""

    stored: bool
    record: bool = False
    row: bool = False
    condemned: int | None = None
    leases: frozenset[int] = frozenset()
    guests: frozenset[int] = frozenset()
    collectors: frozenset[int] = frozenset()
    told: bool = False


@dataclass(frozen=True)
class Actor:
    """have: whether it saw the object. seen: whether it saw that somebody needs it."""

    kind: str
    at: int = 0
    have: bool = False
    seen: bool = False
    tries: int = 0

    def then(self, at: int | None = None, **what: bool | int) -> Actor:
        return replace(self, at=self.at + 1 if at is None else at, **what)  # type: ignore[arg-type]


State = tuple[World, tuple[Actor, ...]]
Next = Iterator[tuple[World, Actor]]


@dataclass(frozen=True)
class Protocol:
    """without: the guards that are left out."""

    without: frozenset[str] = field(default_factory=frozenset)

    def has(self, guard: str) -> bool:
        return guard not in self.without

    def leased(self, w: World, me: int) -> World:
        condemned = None if self.has("a lease ends a condemnation") else w.condemned
        return replace(w, condemned=condemned, leases=w.leases | {me})

    def publisher(self, w: World, a: Actor, me: int) -> Next:
        if a.at == 0:
            yield (self.leased(w, me) if self.has("leases") else w), a.then()
        elif a.at == 1:
            yield w, a.then(3 if w.stored else 2)
        elif a.at == 2:
            yield replace(w, stored=True), a.then()
        elif (
            a.at == 3
        ):  # one transaction: the leases are looked at, the record is put, the row added
            looks = self.has("leases") and self.has("leases stand at the commit")
            if looks and me not in w.leases:
                yield w, (a.then(0, tries=a.tries + 1) if a.tries < RETRIES else a.then(ENDED))
            else:
                yield replace(w, record=True), a.then(ENDED)  # killed before the transaction's end
                yield replace(w, record=True, row=True), a.then()
        elif a.at == 4:
            yield replace(w, leases=w.leases - {me}), a.then(ENDED)

    def guest(self, w: World, a: Actor, me: int) -> Next:
        gone = replace(w, guests=w.guests - {me})
        if a.at == 0:
            yield (replace(w, guests=w.guests | {me}) if self.has("marks") else w), a.then()
        elif a.at == 1:
            yield (gone, a.then(ENDED)) if w.collectors else (w, a.then())
        elif a.at == 2:
            yield w, a.then(4 if w.stored else 3)
        elif a.at == 3:
            yield replace(w, stored=True), a.then()
        elif (
            a.at == 4
        ):  # settle: the mark anew; where it had run out, collections and objects again
            lost = me not in w.guests and self.has("marks")
            if lost and self.has("a lost mark is noticed") and (w.collectors or not w.stored):
                yield gone, a.then(ENDED)
            else:
                yield (replace(w, guests=w.guests | {me}) if self.has("marks") else w), a.then()
        elif a.at == 5:
            yield replace(w, record=True), a.then()
        elif a.at == 6:
            yield gone, a.then(ENDED)

    def reindex(self, w: World, a: Actor, me: int) -> Next:
        if a.at == 0:
            yield w, (a.then() if w.record else a.then(ENDED))
        elif a.at == 1:
            yield (self.leased(w, me) if self.has("reindex leases") else w), a.then()
        elif a.at == 2:
            yield w, a.then(have=w.stored or not self.has("reindex looks"))
        elif a.at == 3:
            if self.has("reindex leases") and me not in w.leases:
                yield w, (a.then(1, tries=a.tries + 1) if a.tries < RETRIES else a.then(ENDED))
            else:
                yield replace(w, row=True, told=w.told or not a.have), a.then()
        elif a.at == 4:
            yield replace(w, leases=w.leases - {me}), a.then(ENDED)

    def copier(self, w: World, a: Actor, me: int) -> Next:
        """A tool that knows nothing of us brings a record whose objects it brought before."""
        yield replace(w, record=w.record or w.stored), a.then(ENDED)

    def collector(self, w: World, a: Actor, me: int) -> Next:
        gone = replace(w, collectors=w.collectors - {me})
        needed = w.record or w.row
        unseen = w.row and not a.seen and self.has("new manifests stop a step")
        leased = bool(w.leases) and self.has("leases are looked at")
        ours = w.condemned == me or (
            w.condemned is not None and not self.has("a condemnation is of one collection")
        )
        if a.at == 0:
            yield replace(w, collectors=w.collectors | {me}), a.then()
        elif a.at == 1:
            refused = w.guests and self.has("guests are looked for")
            yield (gone, a.then(ENDED)) if refused else (w, a.then())
        elif a.at == 2:
            yield w, a.then(seen=needed)
        elif a.at == 3:
            if unseen:
                yield w, a.then(2)
            else:
                free = w.stored and not a.seen and not leased
                yield (replace(w, condemned=me), a.then()) if free else (gone, a.then(ENDED))
        elif a.at == 4:
            yield w, a.then(seen=a.seen or (needed and self.has("a second look")))
        elif a.at == 5:
            refused = w.guests and self.has("guests are looked for")
            yield (gone, a.then(ENDED)) if refused else (w, a.then())
        elif a.at == 6:
            if unseen:
                yield w, a.then(4)
            elif not ours or a.seen or leased:
                yield w, a.then(8)
            elif self.has("the deletion is inside the transaction"):
                yield replace(w, stored=False), a.then(ENDED)  # killed in it
                yield replace(w, stored=False, condemned=None), a.then(8)
            else:
                yield replace(w, condemned=None), a.then()
        elif a.at == 7:
            yield replace(w, stored=False), a.then()
        elif a.at == 8:
            yield gone, a.then(ENDED)

    def steps(self, state: State) -> Iterator[State]:
        world, actors = state
        acts = {"P": self.publisher, "V": self.guest, "R": self.reindex, "C": self.copier,
                "G": self.collector}  # fmt: skip
        for me, actor in enumerate(actors):
            if actor.at == ENDED:
                continue
            before, after = actors[:me], actors[me + 1 :]
            for w, a in acts[actor.kind](world, actor, me):
                yield w, (*before, a, *after)
            yield world, (*before, actor.then(ENDED), *after)  # killed
        for me in world.leases:
            yield replace(world, leases=world.leases - {me}), actors
        for me in world.guests:
            if actors[me].at != 5:  # a mark made anew lasts for longer than one put of a record
                yield replace(world, guests=world.guests - {me}), actors


def is_broken(world: World) -> bool:
    return (world.record or world.row) and not world.stored


def is_silently_broken(world: World) -> bool:
    """Where a copier is about, a record may come too late to save its objects."""
    return world.row and not world.stored and not world.told


STARTS = [World(*flags) for flags in ((True,), (False,))] + [World(True, condemned=99)]


def violations(kinds: str, protocol: Protocol, most: int = 1_000_000) -> int:
    """How many bad worlds can be reached; 1 is enough to know, where a guard is left out."""
    bad = is_silently_broken if "C" in kinds else is_broken
    found = 0
    for world in STARTS:
        start: State = (world, tuple(map(Actor, kinds)))
        todo, seen = [start], {start}
        while todo:
            state = todo.pop()
            if bad(state[0]):
                found += 1
                if found == most:
                    return found
                continue
            for following in protocol.steps(state):
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
    return found


@pytest.mark.parametrize("kinds", ["PPG", "PGG", "VPG", "VGG", "PRG", "CRG", "CRGG"])
def test_no_order_of_steps_loses_an_object_that_is_needed(kinds: str) -> None:
    assert violations(kinds, Protocol()) == 0


# not among them: "new manifests stop a step", for publishers of older versions, without leases
NEEDED = {
    "a condemnation is of one collection": "PGG",
    "leases": "PG",
    "leases stand at the commit": "PG",
    "a lease ends a condemnation": "PG",
    "leases are looked at": "PG",
    "a second look": "PG",
    "the deletion is inside the transaction": "PG",
    "marks": "VG",
    "guests are looked for": "VG",
    "a lost mark is noticed": "VG",
    "reindex leases": "CRG",
    "reindex looks": "CRG",
}


@pytest.mark.parametrize("guard", NEEDED)
def test_every_guard_is_needed(guard: str) -> None:
    assert violations(NEEDED[guard], Protocol(frozenset([guard])), most=1)
