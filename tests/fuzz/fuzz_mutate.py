"""Changes values somewhere in a JSON document to ones that hurt: bytes alone rarely get there."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

HURTS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 10**399,
    -(10**30), 0.5, -0.0, 1e308, 5e-324, float("inf"), "", " ", "x" * 300, "\u202e", "\ud800",
    "\x1b[2J", "é", "../../x", "/etc/passwd", "con", "sha256:" + "0" * 64, "sha256:" + "A" * 64,
    "1e999", "nan", "0x1p-1074", "BF16", "F64", "zero", "rans", "[", "(a+)+$", "*" * 40, [], {},
    [[]], [0] * 70, [2**62, 2**62], [10**399] * 50, {"": None}, {"a": {"b": {"c": []}}}, [None] * 9,
)  # fmt: skip


def mutated(data: bytes, dice: random.Random) -> bytes | None:
    """Another document made of this one; None where it is no JSON object."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        _change(value, dice)
    try:
        return json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):  # an integer too long to be written
        return None


def _change(value: dict[str, Any], dice: random.Random) -> None:
    places = _places(value)
    if not places:
        value["new"] = copy.deepcopy(dice.choice(HURTS))
        return
    holder, key = dice.choice(places)
    kind = dice.random()
    if kind < 0.6:
        holder[key] = copy.deepcopy(dice.choice(HURTS))
    elif kind < 0.75:
        other, there = dice.choice(places)
        holder[key] = copy.deepcopy(other[there])
    elif kind < 0.85:
        del holder[key]
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    elif isinstance(holder[key], int) and not isinstance(holder[key], bool):
        holder[key] += dice.choice((-1, 1))
    else:
        holder[f"{key} "] = copy.deepcopy(holder[key])


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key or index) of every value."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, item in items:
            found.append((holder, key))
            if isinstance(item, dict | list):
                waiting.append(item)
    return found
