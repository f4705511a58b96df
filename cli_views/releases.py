"""Deltas and their releases, as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli_views.common import (
    console,
    escape,
    facts,
    name_list,
    new_table,
    problem_lines,
    said,
    short,
    size_text,
    stored_text,
)
from cli_views.signing import finding_text

if TYPE_CHECKING:
    from registry.results import (
        EventView,
        Published,
        ReleaseDetail,
        ReleaseView,
    )


def published(found: Published) -> None:
    release, summary = found.release, found.release.summary
    note = "" if found.created else " (was there)"
    facts(
        [
            ("release", f"{release.name}@{release.version}{note}"),
            ("digest", release.digest),
            ("base", found.base),
            ("parameters", f"{summary.parameters:,}"),
            ("stored", stored_text(summary)),
            ("exact", "yes: proved bit by bit" if summary.exact else "no: see the warnings"),
            ("signed", finding_text(found.signed.finding) if found.signed else "no"),
            ("time", f"{found.seconds:.1f} s"),
        ]
    )  # fmt: skip
    problem_lines(found.problems)
    console.print(f"next: paramdelta query --delta {escape(release.name)}", style="dim")


def releases(views: Sequence[ReleaseView]) -> None:
    if not views:
        said("no deltas; make one with `paramdelta publish NAME --base REF --post REF`")
        return
    table = new_table("delta", "digest", "parameters", "stored", "bits a weight", "author", "made")
    for view in views:
        release, summary = view.release, view.release.summary
        table.add_row(
            escape(f"{release.name}@{release.version}"),
            short(release.digest),
            f"{summary.parameters:,}",
            size_text(summary.bytes_stored),
            f"{summary.bits_per_weight:.2f}",
            escape(release.author),
            f"{release.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def detail(found: ReleaseDetail) -> None:
    release, summary = found.release, found.release.summary
    facts(
        [
            ("release", f"{release.name}@{release.version}"),
            ("digest", release.digest),
            ("description", release.description or "none"),
            ("author", release.author),
            ("made", f"{release.created_at:%Y-%m-%d %H:%M} UTC"),
            ("licence", release.license or "not stated"),
            ("tags", ", ".join(f"{k}={v}" for k, v in release.tags.items()) or "none"),
            ("yanked", release.yanked or "no"),
            ("own base", ", ".join(found.bases) or "not registered here"),
            ("base content", summary.base_content_digest),
            ("post content", summary.post_content_digest),
            ("architecture", summary.architecture_hash),
            ("tokenizer", summary.tokenizer_hash or "none"),
            ("parameters", f"{summary.parameters:,} ({summary.dtype})"),
            ("stored", stored_text(summary)),
            ("codecs", ", ".join(f"{n} {codec}" for codec, n in summary.codecs.items())),
            ("exact", "yes" if summary.exact else "no: some files were left out"),
            ("files", ", ".join(str(row["path"]) for row in found.files)),
        ]
    )  # fmt: skip
    for finding in found.signatures:
        said(f"signature {finding_text(finding)}")
    name_list("removed by the post-training", found.removed)
    name_list("left out", found.left_out)


def log(events: Sequence[EventView]) -> None:
    table = new_table("time", "who", "what", "detail")
    for view in events:
        event = view.event
        told = ", ".join(f"{k} {_detail(v)}" for k, v in event.detail.items())
        table.add_row(
            f"{event.time:%Y-%m-%d %H:%M:%S}",
            escape(event.actor),
            escape(event.action),
            escape(told),
        )
    console.print(table)


def _detail(value: object) -> str:
    text = str(value)
    return short(text) if text.startswith("sha256:") else text
