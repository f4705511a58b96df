"""What lies in a store and belongs to no release: told, not judged. ``gc`` removes what it may."""

from __future__ import annotations

from collections.abc import Iterable

from paramdelta.problem import Problem, Severity
from registry.artifacts import Artifacts, digest_in, kind_of
from registry.reach import Reach

SHOWN = 20  # of a kind; the rest is counted


def find_strays(artifacts: Artifacts, reach: Reach, *, deep: bool) -> list[Problem]:
    """Notes on objects without a release, releases without a row, and keys of no known kind.

    deep: reads the first too; a warning where one is not what its digest says.
    """
    orphans, foreign, swapped, nbytes = [], [], [], 0
    for stat in artifacts.store.list(""):
        kind = kind_of(stat.key)
        if kind is None:
            foreign.append(stat.key)
        elif kind in ("blob", "manifest", "sketches") and stat.key not in reach.keys:
            orphans.append(stat.key)
            nbytes += stat.size
            if (
                deep
                and kind != "sketches"
                and not artifacts.is_sound(stat.key, digest_in(stat.key), stat.size)
            ):
                swapped.append(stat.key)
    unknown = [f"{name}@{version}" for name, version in reach.unknown]
    return [
        *_told(
            swapped, "its content is another than its digest says", "warning", "`paramdelta gc`"
        ),
        *_told(
            orphans, f"no release needs it ({nbytes:,} bytes in all)", "note", "`paramdelta gc`"
        ),
        *_told(unknown, "the catalog does not know this release", "note", "`paramdelta reindex`"),
        *_told(foreign, "no key of this format; left alone", "note", ""),
    ]


def _told(keys: Iterable[str], reason: str, severity: Severity, remedy: str) -> list[Problem]:
    found = sorted(keys)
    told = [Problem(key, reason, severity, remedy) for key in found[:SHOWN]]
    if len(found) > SHOWN:
        told.append(Problem(f"{len(found) - SHOWN:,} more", reason, severity, remedy))
    return told
