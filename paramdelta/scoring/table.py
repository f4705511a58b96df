"""SCORERS: a scorer is a file beside this one and a line here, or an entry point."""

from __future__ import annotations

from importlib.metadata import entry_points

from paramdelta.errors import UsageError
from paramdelta.scoring import exact_match, harness, multiple_choice, perplexity
from paramdelta.scoring.base import Scorer, Task, Values

GROUP = "paramdelta.scorers"
SCORERS: dict[str, Scorer] = {
    scorer.name: scorer
    for scorer in (
        perplexity.SCORER,
        exact_match.SCORER,
        multiple_choice.SCORER,
        harness.SCORER,
    )
}


def open_task(text: str) -> Task:
    """The task that ``SCORER:ARGUMENT[?option=value&…]`` names, read and checked.

    UsageError on the words, NotFoundError and InvalidError on the files.
    """
    name, colon, rest = text.partition(":")
    argument, mark, said = rest.partition("?")
    if not colon or not argument:
        raise UsageError(
            f"malformed task {text[:200]!r}",
            remedy="write SCORER:ARGUMENT, such as exact-match:questions.jsonl",
        )
    scorer = find_scorer(name)
    return scorer.open(argument, _values(scorer, said if mark else ""))


def find_scorer(name: str) -> Scorer:
    """From the table, or a plug-in that is installed. UsageError."""
    if known := SCORERS.get(name):
        return known
    for entry in entry_points(group=GROUP):
        if entry.name != name:
            continue
        try:
            found = entry.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"the plug-in of scorer {name!r} cannot be loaded: {error}",
                remedy="install it again, or remove it",
            ) from error
        if not isinstance(found, Scorer):
            raise UsageError(
                f"the plug-in of scorer {name!r} is no paramdelta.scoring.Scorer",
                remedy=f"see {entry.value}",
            )
        return found
    raise UsageError(f"unknown scorer {name[:80]!r}", remedy=f"one of: {', '.join(SCORERS)}")


def _values(scorer: Scorer, said: str) -> Values:
    """All options of *scorer*, those that *said* gives with their values."""
    known = {option.name: option for option in scorer.options}
    found: dict[str, int | None] = {option.name: option.default for option in scorer.options}
    for part in said.split("&") if said else []:
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise UsageError(
                f"{scorer.name}: no option {part[:80]!r}",
                remedy=f"its options: {', '.join(known) or 'none'}",
            )
        lowest = known[key].lowest
        if not (value.isascii() and value.isdecimal() and len(value) < 10) or int(value) < lowest:
            raise UsageError(f"{scorer.name}: {key}={value[:40]}: a whole number from {lowest} on")
        found[key] = int(value)
    return found
