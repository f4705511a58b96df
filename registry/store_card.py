"""The page of a store that people look at: its releases, their bases, and how to pull them.

Made anew whenever a release is added; rows and bases that the page names already are kept, so an
update reads the new records only. Nothing is ever decided by what stands on the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from registry.artifacts import Artifacts
from registry.markdown import cell
from registry.records import Base
from registry.seal import ReleaseRecord
from registry.sources import HUB_SCHEME
from registry.stores.base import HasCard

MAX_ROWS = 1000  # the newest by name; the rest is counted
# what the hub knows by these names; everything else is "other"
LICENSES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "bigscience-openrail-m", "bsd-2-clause", "bsd-3-clause",
    "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "gemma", "gpl-3.0",
    "lgpl-3.0", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "mit", "mpl-2.0",
    "openrail", "unlicense",
}  # fmt: skip
_ROW = re.compile(r"\| `([a-z0-9][a-z0-9._/-]*@[1-9][0-9]{0,8})` \| `sha256:[0-9a-f]{64}` \| .*")
_BASE = re.compile(r"- ([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)")


def base_models(bases: Iterable[Base]) -> set[str]:
    """The hub repositories among the places where a base lies."""
    places = (base.location for base in bases)
    return {p.removeprefix(HUB_SCHEME).split("@")[0] for p in places if p.startswith(HUB_SCHEME)}


def refresh_card(artifacts: Artifacts, bases: Iterable[str]) -> None:
    """Updates the page of a store that has one. bases: hub repositories to name on it."""
    store = artifacts.store
    if not isinstance(store, HasCard):
        return
    before = store.read_card()
    known = {found[1]: line for line in before.splitlines() if (found := _ROW.fullmatch(line))}
    rows: list[str] = []
    releases = sorted(artifacts.list_releases())
    for name, version in releases[:MAX_ROWS]:
        ref = f"{name}@{version}"
        data = None if ref in known else artifacts.read_release(name, version)
        if data is not None:
            known[ref] = _row(ReleaseRecord.from_bytes(data, ref))
        if ref in known:
            rows.append(known[ref])
    named = _BASE.findall(before.partition("\n---\n")[0]) if before.startswith("---\n") else []
    store.write_card(_card(store.url, sorted({*named, *bases}), rows, len(releases)))


def _row(record: ReleaseRecord) -> str:
    cells = (
        f"`{record.name}@{record.version}`",
        f"`{record.manifest}`",
        cell(record.license or "not stated"),
        f"{record.time:%Y-%m-%d}",
        cell(record.description),
    )
    return f"| {' | '.join(cells)} |"


def _card(url: str, bases: list[str], rows: list[str], count: int) -> str:
    front = ["---", "library_name: paramdelta", "tags:", "- paramdelta", "- parameter-delta"]
    if bases:
        front += ["base_model:", *(f"- {base}" for base in bases), "base_model_relation: adapter"]
    licenses = {row.split(" | ")[2] for row in rows}
    if len(licenses) == 1 and (license := licenses.pop()) != "not stated":
        front.append(f"license: {license if license in LICENSES else 'other'}")
    lines = [
        *front,
        "---",
        "",
        "# Parameter deltas",
        "",
        "Post-trained weights minus base weights, to be added to a base of the same lineage.",
        "Each release restores its post-trained model bit for bit.",
        "",
        "```",
        f"paramdelta pull NAME --from {url}",
        "paramdelta apply NAME --base BASE --out FOLDER",
        "```",
        "",
        "| release | manifest | licence | made | description |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
    if count > len(rows):
        lines += [f"And {count - len(rows)} more.", ""]
    return "\n".join(lines)
