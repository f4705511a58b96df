"""What is trained, as values: a recipe says all that decides a model's bits on one machine.

``Line`` is one seed's family tree. A recipe's key is a hash of itself and its ancestors, so that a
model that was trained once is found again, and a changed recipe never finds an old model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise

from examples.reproduction.skills import SKILLS

SPAN = 1000  # seeds of trainings of one line


@dataclass(frozen=True)
class Recipe:
    """name: for people; no part of the key. parent: what it starts from; None: random weights.

    rate: the learning rate's peak. prose: share of prose in the text, the rest is code. skills: in
    turn; none: text alone. replay: text rows beside the skills' rows. noise_like: not trained, but
    moved from the parent at random, as far as this recipe moved from its own. characters: of each
    text; None for all.
    """

    name: str
    seed: int
    parent: Recipe | None = None
    generation: str = "1"
    steps: int = 0
    rate: float = 0.0
    prose: float = 0.5
    skills: tuple[str, ...] = ()
    replay: bool = True
    noise_like: Recipe | None = None
    characters: int | None = None

    @cached_property
    def key(self) -> str:
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        del said["name"]
        for field in ("parent", "noise_like"):
            said[field] = said[field].key if said[field] else None
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def line_seed(self) -> int:
        """The seed of the line that it belongs to."""
        return self.seed // SPAN

    @property
    def needs(self) -> list[Recipe]:
        return [one for one in (self.parent, self.noise_like) if one is not None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is trained and measured.

    pretraining, post, domain, and each of rungs: (steps, peak learning rate). alphas: of the
    sweeps; grid: of each of two deltas; mix: of several deltas together. items: questions a skill.
    characters, held_out: of each text, to train and to measure.
    """

    name: str
    seeds: tuple[int, ...]
    pretraining: tuple[int, float]
    post: tuple[int, float]
    general_steps: int
    rungs: tuple[tuple[int, float], ...]
    domain: tuple[int, float]
    alphas: str
    grid: str
    mix: str
    items: int
    characters: int | None
    held_out: int


FULL = Scale(
    name="full",
    seeds=(1, 2, 3),
    pretraining=(450, 3e-3),
    post=(240, 1.5e-3),
    general_steps=440,
    rungs=((110, 4e-4), (110, 1e-3), (110, 2e-3), (110, 4e-3), (110, 8e-3)),
    domain=(110, 1e-3),
    alphas="0,0.5,0.75,0.9,1,1.1,1.25,1.5,2",
    grid="0.6,0.8,1",
    mix="0.8,1",
    items=200,
    characters=None,
    held_out=12_000,
)

SMOKE = Scale(  # whether everything runs and comes out; its models have learned nothing
    name="smoke",
    seeds=(1,),
    pretraining=(4, 3e-3),
    post=(4, 1e-3),
    general_steps=4,
    rungs=((2, 1e-3), (2, 4e-3)),
    domain=(2, 1e-3),
    alphas="0,1",
    grid="0,1",
    mix="1",
    items=6,
    characters=20_000,
    held_out=1_000,
)


@dataclass(frozen=True)
class Line:
    """One seed's models by name."""

    seed: int
    scale: Scale

    def _recipe(self, name: str, offset: int, **said: object) -> Recipe:
        seed = SPAN * self.seed + offset
        return Recipe(name, seed, characters=self.scale.characters, **said)  # type: ignore[arg-type]

    def _post(
        self, name: str, offset: int, on: Recipe, *skills: str, replay: bool = True
    ) -> Recipe:
        steps, rate = self.scale.post
        if len(skills) > 1:
            steps = self.scale.general_steps
        return self._recipe(
            name, offset, parent=on, generation=on.generation, steps=steps, rate=rate,
            skills=skills, replay=replay,
        )  # fmt: skip

    @cached_property
    def base(self) -> Recipe:
        steps, rate = self.scale.pretraining
        return self._recipe("base", 0, steps=steps, rate=rate, prose=0.75)

    @cached_property
    def other(self) -> Recipe:
        """The control that is no kin: another seed's base, from other random weights and rows."""
        seeds = self.scale.seeds
        following = dict(pairwise(seeds)).get(self.seed, seeds[0])
        if following == self.seed:
            following += 1
        return Line(following, self.scale).base

    @cached_property
    def rungs(self) -> tuple[Recipe, ...]:
        """Bases ever further on: each continues the one before, faster. The first is *the* new
        base."""
        found: list[Recipe] = []
        for place, (steps, rate) in enumerate(self.scale.rungs, 1):
            found.append(
                self._recipe(
                    f"base.{place}", 10 + place, parent=found[-1] if found else self.base,
                    generation="1.1", steps=steps, rate=rate, prose=0.4,
                )
            )  # fmt: skip
        return tuple(found)

    @cached_property
    def domain(self) -> Recipe:
        steps, rate = self.scale.domain
        return self._recipe(
            "domain", 30, parent=self.base, generation="1.1", steps=steps, rate=rate, prose=0.0
        )

    @cached_property
    def posts(self) -> dict[str, Recipe]:
        """On the base: one post-training a skill, and ``general``, which has all of them."""
        found = {s: self._post(s, 40 + i, self.base, s) for i, s in enumerate(SKILLS)}
        return found | {"general": self._post("general", 49, self.base, *SKILLS)}

    @cached_property
    def reference(self) -> Recipe:
        """``general`` trained on the new base itself."""
        return self._post("general-on-new", 59, self.rungs[0], *SKILLS)

    @cached_property
    def unreplayed(self) -> Recipe:
        return self._post("upper-unreplayed", 60, self.base, "upper", replay=False)

    @cached_property
    def noise(self) -> Recipe:
        post = self.posts["upper"]
        return self._recipe("noise", 70, parent=self.base, skills=("upper",), noise_like=post)

    @property
    def all(self) -> Sequence[Recipe]:
        """Parents before their children."""
        return [
            self.base, *self.posts.values(), self.unreplayed, self.noise, *self.rungs,
            self.reference, self.domain, self.other,
        ]  # fmt: skip
