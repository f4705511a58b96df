"""The family's table: each member's accuracy and loss, transfers by alpha, a mix and the control.

    .venv/bin/python examples/family/measure.py

Deltas are added in float32 here, without the product, as an independent look at the same science.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import evaluate
import tasks

CHECKPOINTS = Path(__file__).parent / "checkpoints"
MEMBERS = ["base-1", "base-1-upper", "base-1-digits", "base-1.1", "base-1.1-upper", "other-1"]
ITEMS = 300


def main() -> None:
    loaded = {name: evaluate.load(CHECKPOINTS / name) for name in MEMBERS}
    weights = {name: model.state_dict() for name, (model, _) in loaded.items()}
    tokenizer = loaded["base-1.1"][1]
    test = {task: tasks.items(task, ITEMS, 0, "test") for task in tasks.TEMPLATES}

    def row(label: str, model: Any) -> None:
        scores = [evaluate.accuracy(model, tokenizer, items) for items in test.values()]
        shown = " | ".join(f"{score:.3f}" for score in scores)
        print(f"| {label} | {shown} | {evaluate.lm_loss(model, tokenizer):.3f} |", flush=True)

    def moved(base: str, alphas: dict[str, float]) -> Any:
        model = copy.deepcopy(loaded[base][0])
        state = model.state_dict()
        for task, alpha in alphas.items():
            for name, tensor in weights[f"base-1-{task}"].items():
                state[name] += alpha * (tensor - weights["base-1"][name])
        model.load_state_dict(state)
        return model

    def norm(left: str, right: str) -> float:
        pairs = weights[left].items()
        return float(sum(((t - weights[right][n]) ** 2).sum() for n, t in pairs) ** 0.5)

    print(f"| model | {' | '.join(tasks.TEMPLATES)} | LM loss |")
    print("|---|---|---|---|")
    for name in MEMBERS:
        row(name, loaded[name][0])
    for alpha in (0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        row(f"base-1.1 + {alpha}·Δupper", moved("base-1.1", {"upper": alpha}))
    row("base-1.1 + Δdigits", moved("base-1.1", {"digits": 1.0}))
    for alpha in (0.8, 1.0):
        row(
            f"base-1.1 + {alpha}·Δupper + {alpha}·Δdigits",
            moved("base-1.1", {"upper": alpha, "digits": alpha}),
        )
    row("other-1 + Δupper", moved("other-1", {"upper": 1.0}))
    base = float(sum((t**2).sum() for t in weights["base-1"].values()) ** 0.5)
    print(f"\n‖base-1.1 − base-1‖ / ‖base-1‖ = {norm('base-1.1', 'base-1') / base:.3f}")
    for task in test:
        print(f"‖Δ{task}‖ / ‖base-1‖ = {norm(f'base-1-{task}', 'base-1') / base:.3f}")


if __name__ == "__main__":
    main()
