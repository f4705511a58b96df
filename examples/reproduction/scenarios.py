"""The paper's four scenarios, the drift ladder and the controls, for one seed: a JSON document.

    general      Δ of one post-training in all skills, on the newer base
    task         Δ of one skill each, on the newer base
    continual    Δ on a base that was pretrained further in a domain
    mix          two and three Δ at once, each with its own alpha

ParamΔ, arXiv 2504.21023.
"""

from __future__ import annotations

from itertools import combinations

from examples.reproduction.measuring import Bench, Json, Tests
from examples.reproduction.recipes import Line, Recipe
from examples.reproduction.skills import SKILLS

GENERAL = "general"
CHOSEN = "upper"  # the skill of the controls and of the alpha curves
MIX_METHODS: tuple[tuple[str, dict[str, str]], ...] = (
    ("ties", {"density": "0.5"}),
    ("dare_linear", {"density": "0.5"}),
)


def measure(bench: Bench, line: Line, tests: Tests) -> Json:
    """Everything of one seed. Prepares the registry first; what is there already is found again."""
    published = prepare(bench, line)
    return {
        "seed": line.seed,
        "published": published,
        "models": _models(bench, line, tests),
        "alphas": _alphas(bench, line, tests),
        "transfers": _transfers(bench, line, tests),
        "ladder": _ladder(bench, line, tests),
        "continual": _continual(bench, line, tests),
        "mix": _mix(bench, line, tests),
        "controls": _controls(bench, line, tests),
        "cosines": bench.cosines([*SKILLS, GENERAL]),
    }


def prepare(bench: Bench, line: Line) -> Json:
    for base in (line.base, *line.rungs, line.domain, line.other):
        bench.add_base(base)
    posts = line.posts | {"unreplayed": line.unreplayed, "noise": line.noise}
    return {name: bench.publish(name, post) for name, post in posts.items()}


def _models(bench: Bench, line: Line, tests: Tests) -> Json:
    """Scores of what was trained: bases, posts, references."""
    new, *farther = line.rungs
    found = {base.name: bench.scores(base, tests.all) for base in (line.base, new)}
    plain = tests.written_of(*SKILLS) + tests.texts
    found |= {base.name: bench.scores(base, plain) for base in (*farther, line.domain)}
    found["other"] = bench.scores(line.other, plain)
    for name, recipe in line.posts.items():
        found[name] = bench.scores(recipe, _own(tests, name))
    found[line.reference.name] = bench.scores(line.reference, tests.all)
    found[line.unreplayed.name] = bench.scores(line.unreplayed, _own(tests, CHOSEN))
    return found


def _skills(delta: str) -> tuple[str, ...]:
    return tuple(SKILLS) if delta == GENERAL else (delta,)


def _own(tests: Tests, delta: str) -> list[str]:
    """The tasks that a delta is for, and the held-out texts."""
    return tests.of(*_skills(delta)) + tests.texts


def _alphas(bench: Bench, line: Line, tests: Tests) -> Json:
    """Scores over alpha on the newer base, by delta; of the general one at alpha 1 alone."""
    new = line.rungs[0]
    grid = line.scale.alphas
    found = {name: bench.sweep([name], new, grid, _own(tests, name)) for name in SKILLS}
    found[GENERAL] = bench.sweep([GENERAL], new, "1", tests.all)
    found["unreplayed"] = bench.sweep(["unreplayed"], new, grid, _own(tests, CHOSEN))
    return found


def _transfers(bench: Bench, line: Line, tests: Tests) -> Json:
    """The three numbers on the newer base, by delta; the sweep has measured alpha 1."""
    new = line.rungs[0]
    return {
        name: bench.transfer(name, new, None, line.reference if name == GENERAL else None)
        for name in line.posts
    }


def _ladder(bench: Bench, line: Line, tests: Tests) -> list[Json]:
    """Every delta at alpha 1 on ever farther bases and on the one that is no kin."""
    rows = []
    for base in (*line.rungs, line.domain, line.other):
        drift = bench.drift_ratios(base)
        for name in line.posts:
            bench.sweep([name], base, "1", tests.written_of(*_skills(name)))
            rows.append(
                {
                    "base": "other" if base is line.other else base.name,
                    "delta": name,
                    "drift_ratio": drift[name],
                    "written": bench.transfer(name, base, "exact-match", None),
                }
            )
    return rows


def _continual(bench: Bench, line: Line, tests: Tests) -> list[Json]:
    return bench.sweep([GENERAL], line.domain, "0,1", tests.all)


def _mix(bench: Bench, line: Line, tests: Tests) -> Json:
    new, grid, alphas = line.rungs[0], line.scale.grid, line.scale.mix
    names = list(SKILLS)
    first, second = names[:2]

    def tasks(*skills: str) -> list[str]:
        return [*tests.written_of(*skills), tests.prose]

    both = tasks(first, second)
    return {
        "grid": bench.sweep([first, second], new, grid, both, betas=grid),
        "pairs": {
            f"{a}+{b}": bench.sweep([a, b], new, alphas, tasks(a, b))
            for a, b in combinations(names, 2)
        },
        "three": bench.sweep(names, new, alphas, tasks(*names)),
        "methods": {
            method: bench.sweep([first, second], new, alphas, both, method=method, options=options)
            for method, options in MIX_METHODS
        },
    }


def _controls(bench: Bench, line: Line, tests: Tests) -> Json:
    """What must fail: a base that is no kin, a random delta as long as the real one; and alpha 0,
    which must be the base."""
    new = line.rungs[0]
    own = _own(tests, CHOSEN)

    def at_one(delta: str, base: Recipe) -> list[Json]:
        return bench.sweep([delta], base, "1", own)

    return {
        "transfer": at_one(CHOSEN, new),
        "other": at_one(CHOSEN, line.other),
        "noise": at_one("noise", new),
        "zero": bench.sweep([CHOSEN], new, "0", own),
        "base": bench.scores(new, own),
    }
