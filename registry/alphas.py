"""Alphas for some tensors: ``PATTERN=0.5``, ``DELTA:PATTERN=0.5``, ``layers.{i}=0:1``.

A pattern is a glob that a tensor's name contains; the last that matches decides. With a delta
before it, it is for that delta alone. ``{i}`` stands for a layer's number and takes a ramp
``FIRST:LAST``, linear from the lowest matching layer to the highest; it is written out, a layer a
pattern, so that a recipe holds numbers and no rule for making them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Collection, Mapping

from paramdelta.errors import UsageError
from paramdelta.limits import MAX_ALPHA_PATTERNS
from registry.references import parse_alpha

LAYER = "{i}"

AlphaFor = list[tuple[str, float]]


def matches(pattern: str, ref: str, name: str) -> bool:
    """Whether *pattern* is for the tensor *name* of the delta *ref*."""
    delta, _, glob = pattern.rpartition(":")
    return delta in ("", ref) and fnmatch.fnmatchcase(name, f"*{glob}*")


def parse_alpha_for(
    given: Mapping[str, str], resolve: Callable[[str], str], names: Collection[str]
) -> AlphaFor:
    """(pattern, alpha) in the given order, ramps written out.

    resolve: a delta as a person names it → its reference in the plan, or an error. names: of the
    deltas' tensors. UsageError on what is malformed or matches no layer.
    """
    found: AlphaFor = []
    for pattern, text in given.items():
        delta, colon, glob = pattern.rpartition(":")
        prefix = f"{resolve(delta)}:" if colon else ""
        if not glob:
            raise UsageError(f"empty pattern in --alpha-for {pattern!r}")
        first, ramp, last = text.partition(":")
        if (LAYER in glob) != bool(ramp):
            raise UsageError(
                f"--alpha-for {pattern}={text}: a ramp and {LAYER} go together",
                remedy=f"write 'layers.{LAYER}=0:1', or one number and no {LAYER}",
            )
        if not ramp:
            found.append((prefix + glob, parse_alpha(text)))
            continue
        made = _ramp(glob, parse_alpha(first), parse_alpha(last), names)
        found += [(prefix + one, alpha) for one, alpha in made]
    if len(found) > MAX_ALPHA_PATTERNS:
        raise UsageError(f"{len(found)} patterns of --alpha-for; {MAX_ALPHA_PATTERNS} allowed")
    return found


def _ramp(glob: str, first: float, last: float, names: Collection[str]) -> AlphaFor:
    if glob.endswith(LAYER):
        glob += "."  # so that layer 1 is not the beginning of layer 10
    numbers = {int(part) for name in names for part in name.split(".") if part.isdecimal()}
    layers = sorted(i for i in numbers if any(_is_layer(glob, i, name) for name in names))
    if not layers:
        raise UsageError(f"--alpha-for {glob!r} matches no layer of the deltas")
    span = max(1, layers[-1] - layers[0])
    return [
        (
            glob.replace(LAYER, str(i)),
            parse_alpha(repr(first + (last - first) * ((i - layers[0]) / span))),
        )
        for i in layers
    ]


def _is_layer(glob: str, i: int, name: str) -> bool:
    return fnmatch.fnmatchcase(name, f"*{glob.replace(LAYER, str(i))}*")
