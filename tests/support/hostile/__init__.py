"""Inputs shaped like attacks, each with the answer that it must get. Made when they are needed.

A case is added to the module of its kind. Nothing of it is kept in the repository: files are made
the same every time, and the large ones are sparse or never whole in memory.
"""

from __future__ import annotations

from support.hostile import artifacts, checkpoints, words
from support.hostile.case import Case

GROUPS: dict[str, list[Case]] = {
    "checkpoints": list(checkpoints.cases()),
    "words": list(words.cases()),
    "manifests": list(artifacts.manifests()),
    "objects": list(artifacts.objects()),
}
