"""One seed's models in a registry, and what is asked of them.

All of it is the product's own: publish, sweep, evaluate, transfer, query, compare. Scores are kept
in the catalog, so that a second run measures only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.family import texts
from examples.reproduction.recipes import Line, Recipe, Scale
from examples.reproduction.skills import SKILLS, write_tests
from registry.registry import Registry

WINDOW = 64  # tokens of a window of held-out text, as in training
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tests:
    """Tasks as ``evaluate`` takes them. written, chosen: by skill. prose, code: held-out text."""

    written: dict[str, str]
    chosen: dict[str, str]
    prose: str
    code: str

    @classmethod
    def write(cls, folder: Path, scale: Scale) -> Tests:
        folder.mkdir(parents=True, exist_ok=True)
        pairs = {name: write_tests(skill, folder, scale.items) for name, skill in SKILLS.items()}
        held_out = texts.read_texts().held_out
        kinds = {
            "prose": held_out[: texts.HELD_CHARACTERS],
            "code": held_out[texts.HELD_CHARACTERS :],
        }
        named = {}
        for kind, text in kinds.items():
            path = folder / f"{kind}.txt"
            path.write_text(text[: scale.held_out], encoding="ascii")
            named[kind] = f"perplexity:{path}?window={WINDOW}"
        written = {name: pair[0] for name, pair in pairs.items()}
        chosen = {name: pair[1] for name, pair in pairs.items()}
        return cls(written, chosen, named["prose"], named["code"])

    @property
    def texts(self) -> list[str]:
        return [self.prose, self.code]

    def written_of(self, *skills: str) -> list[str]:
        return [self.written[skill] for skill in skills]

    def of(self, *skills: str) -> list[str]:
        return [test for skill in skills for test in (self.written[skill], self.chosen[skill])]

    @property
    def all(self) -> list[str]:
        return self.of(*SKILLS) + self.texts


class Bench:
    """A seed's bases and deltas under names that begin with ``seed-N/``."""

    def __init__(
        self, registry: Registry, line: Line, tests: Tests, folder_of: Callable[[Recipe], Path]
    ) -> None:
        self._registry, self._tests, self._folder_of = registry, tests, folder_of
        self._line = line

    def base_name(self, recipe: Recipe) -> str:
        return f"seed-{recipe.line_seed}-{recipe.name}"

    def delta_name(self, name: str) -> str:
        return f"seed-{self._line.seed}/{name}"

    def add_base(self, recipe: Recipe) -> None:
        self._registry.add_base(str(self._folder_of(recipe)), self.base_name(recipe))

    def publish(self, name: str, post: Recipe) -> Json:
        assert post.parent is not None
        done = self._registry.publish(
            self.delta_name(name), self.base_name(post.parent), str(self._folder_of(post)),
            author="reproduction", description=f"{post.name}, seed {self._line.seed}",
        )  # fmt: skip
        return {"digest": str(done.release.digest), "exact": done.release.summary.exact}

    def scores(self, recipe: Recipe, tasks: Sequence[str]) -> Json:
        """Of a model as it was trained, by task and metric."""
        found = self._registry.evaluate(str(self._folder_of(recipe)), tasks, device="cpu")
        return {
            "digest": found.content_digest,
            "scores": [_score(view.score) for view in found.scores],
        }

    def sweep(
        self,
        deltas: Sequence[str],
        base: Recipe,
        alphas: str,
        tasks: Sequence[str],
        betas: str | None = None,
        method: str = "linear",
        options: dict[str, str] | None = None,
    ) -> list[Json]:
        """deltas: names without the seed, with an alpha where it is held."""
        found = self._registry.sweep(
            [self.delta_name(name) for name in deltas], self.base_name(base), alphas, tasks,
            betas=betas, method=method, options=options, device="cpu",
        )  # fmt: skip
        return [
            {"alpha": _plain(row.alpha), "beta": _plain(row.beta), "digest": row.model_digest}
            | _score(row)
            for row in found.rows
        ]

    def transfer(
        self, delta: str, base: Recipe, metric: str | None, reference: Recipe | None
    ) -> Json:
        """From the scores that are stored: the three numbers, and the rows they come from."""
        found = self._registry.transfer(
            self.delta_name(delta), self.base_name(base), metric=metric,
            reference=str(self._folder_of(reference)) if reference else None,
        )  # fmt: skip
        return {
            "estimates": {one.name: one.to_json() for one in found.estimates},
            "rows": [asdict(row) for row in found.rows],
        }

    def drift_ratios(self, base: Recipe) -> dict[str, float | None]:
        """Of this seed's deltas towards *base*, as ``query`` tells them."""
        found = self._registry.query_base(
            self.base_name(base), min_verdict="incompatible", limit=None
        )
        start = self.delta_name("")
        return {
            match.ref.removeprefix(start).split("@")[0]: match.drift_ratio
            for match in found.results
            if match.ref.startswith(start)
        }

    def cosines(self, deltas: Sequence[str]) -> list[Json]:
        """Of every pair, over all elements."""
        found = self._registry.compare([self.delta_name(name) for name in deltas])
        return [
            {"a": pair.a.split("/")[1], "b": pair.b.split("/")[1]} | pair.whole.to_json()
            for pair in found.pairs
        ]


def _plain(alpha: float | None) -> float | None:
    """0.8, not 0.800000011920929: the float32 number as people write it."""
    return None if alpha is None else round(alpha, 6)


def _score(one: Any) -> Json:
    """Of a stored score or a row of a sweep."""
    return {
        "task": one.task.split("?")[0],
        "metric": one.metric,
        "value": one.value,
        "stderr": one.stderr,
        "higher_is_better": one.higher_is_better,
    }
