"""Stored scores of deltas on bases, for whoever chooses among them.

Of each task the score at the alpha nearest to 1: to take the best alpha would be to choose on what
is shown as evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from registry.catalog import Catalog
from registry.catalog.chunks import CHUNK, chunks
from registry.catalog.scores import Wanted
from registry.records import MadeModel, Score
from registry.results.evaluating import Evidence

Pair = tuple[str, str]  # manifest digest, base content digest


def on_base(catalog: Catalog, base: str | None, deltas: Sequence[str]) -> dict[str, list[Evidence]]:
    """By delta, of one base's content; empty where the content is not known."""
    if base is None or not deltas:
        return {}
    few = deltas if len(deltas) <= CHUNK else None  # of many, all that is known of the base
    made = catalog.scores.made_of_pairs(base=base, deltas=few)
    return {delta: found for (delta, _), found in _evidence(catalog, made).items()}


def of_delta(catalog: Catalog, delta: str, bases: Iterable[str]) -> dict[str, list[Evidence]]:
    """By base's content, of one delta."""
    wanted = set(bases)
    made = [
        one for one in catalog.scores.made_of_pairs(deltas=[delta]) if one.base_digest in wanted
    ]
    return {base: found for (_, base), found in _evidence(catalog, made).items()}


def _evidence(catalog: Catalog, made: Sequence[MadeModel]) -> Mapping[Pair, list[Evidence]]:
    made = [one for one in made if one.deltas[0].alpha != 0]
    models = {one.model_digest for one in made} | {one.base_digest for one in made}
    scores: dict[str, list[Score]] = {}
    for some in chunks(sorted(models)):
        for score in catalog.scores.find(Wanted(models=some)):
            scores.setdefault(score.model_digest, []).append(score)
    nearest: dict[tuple[Pair, str, str], Evidence] = {}
    for one in made:
        delta = one.deltas[0]
        for score in scores.get(one.model_digest, ()):
            key = ((delta.digest, one.base_digest), score.task, score.metric)
            if key in nearest and _off(nearest[key].alpha) <= _off(delta.alpha):
                continue
            nearest[key] = Evidence(
                delta.alpha, score.task, score.metric, score.value, score.stderr, score.n,
                score.higher_is_better, _of_base(scores.get(one.base_digest, ()), score),
            )  # fmt: skip
    by_pair: dict[Pair, list[Evidence]] = {}
    for (pair, _, _), found in sorted(nearest.items(), key=lambda item: item[0]):
        by_pair.setdefault(pair, []).append(found)
    return by_pair


def _off(alpha: float) -> float:
    return abs(alpha - 1)


def _of_base(scores: Sequence[Score], like: Score) -> float | None:
    same = (like.task_digest, like.metric)
    return next((s.value for s in scores if (s.task_digest, s.metric) == same), None)
