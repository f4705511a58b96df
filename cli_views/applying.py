"""Plans and what was made of them, as people see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cli_views.common import (
    SHOWN,
    coloured,
    console,
    escape,
    facts,
    new_table,
    problem_lines,
    said,
    size_text,
)
from cli_views.signing import vouchers
from registry.results import Applied, AppliedPart, ExportedLora, MethodView, RestoredView

if TYPE_CHECKING:
    from registry.plan import Plan
    from registry.sharing import Assignment


def plan(found: Plan) -> None:
    facts(
        [
            ("base", found.base.ref),
            *(("delta", f"{d.ref} × {d.alpha:g}") for d in found.deltas),
            ("method", f"{_method(found)}, rule {found.rule}"),
            *(("alpha for", f"{pattern}: {alpha:g}") for pattern, alpha in found.alpha_for),
            ("dtype", found.dtype or "as the base"),
            ("device", ": ".join(filter(None, (found.device, found.device_reason)))),
            ("tensors", ", ".join(f"{n} {what}" for what, n in _actions(found.counts) if n)),
            ("files", ", ".join(f"{file.path} ({file.origin})" for file in found.files)),
        ]
    )
    _behaviour(found)
    console.print(f"verdict: {coloured(found.verdict)}")
    vouchers(found.signed)
    problem_lines(found.problems)


def _method(found: Plan) -> str:
    options = ", ".join(f"{key}={value}" for key, value in found.options.items())
    return f"{found.method} ({options})" if options else found.method


def methods(views: Sequence[MethodView]) -> None:
    table = new_table("method", "merged Δ", "from", "options")
    for view in views:
        options = [f"{name}={default} ({allowed}): {says}" for name, default, allowed, says
                   in view.options]  # fmt: skip
        table.add_row(view.name, escape(view.equation), view.paper, escape("\n".join(options)))
    console.print(table)


def _behaviour(found: Plan) -> None:
    """How the output will behave otherwise than its base."""
    if not found.behaviour:
        return
    table = new_table("behaviour", "in the base", "in the output")
    for change in found.behaviour[:SHOWN]:
        table.add_row(escape(change.subject), escape(change.before), escape(change.after))
    console.print(table)
    if len(found.behaviour) > SHOWN:
        said(f"and {len(found.behaviour) - SHOWN} more changes of behaviour")


def _actions(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    words = {"add": "added to", "copy": "copied", "replace": "replaced", "new": "new"}
    return [(words[action], n) for action, n in counts.items()]


def planned(found: Plan, shares: Sequence[Assignment]) -> None:
    """shares: what each part makes, where there are several."""
    plan(found)
    if not shares:
        return
    table = new_table("shard", "tensors", "bytes", "files")
    for share in shares:
        files = ", ".join(share.files[:SHOWN]) + (" …" if len(share.files) > SHOWN else "")
        table.add_row(
            str(share.part), str(len(share.tensors)), size_text(share.nbytes), escape(files)
        )
    console.print(table)


def applied(found: Applied | AppliedPart) -> None:
    if isinstance(found, AppliedPart):
        _applied_part(found)
        return
    plan(found.plan)
    facts(
        [
            ("out", found.out),
            ("content", found.content_digest),
            ("time", f"{found.seconds:.1f} s on {found.device}"),
            *(("rounded away", text) for text in _lost(found)),
        ]
    )
    console.print(f"next: paramdelta verify --model {escape(found.out)}", style="dim")


def _applied_part(found: AppliedPart) -> None:
    facts(
        [
            ("out", found.out),
            ("shard", found.shard),
            ("content", found.content_digest or f"not sealed: {found.missing} tensors to go"),
            ("time", f"{found.seconds:.1f} s on {found.device}"),
        ]
    )


def _lost(found: Applied) -> list[str]:
    lost = found.to_json()["lost_updates"]
    if lost is None:
        return []
    worst = "".join(f"; most in {row['name']}: {row['share']:.1%}" for row in lost["worst"][:1])
    return [f"{lost['share']:.1%} of the elements that the deltas change{worst}"]


def restored(found: RestoredView) -> None:
    table = new_table("file", "sha256")
    for path, digest in found.files.items():
        table.add_row(escape(path), digest.removeprefix("sha256:"))
    console.print(table)
    problem_lines(found.problems)
    said(f"{found.ref} is in {found.out}, bit for bit, after {found.seconds:.1f} s")
    vouchers(found.signed)


def exported(found: ExportedLora) -> None:
    table = new_table("tensor", "rank", "error")
    for name, rank, error in found.tensors[:SHOWN]:
        table.add_row(escape(name), str(rank), f"{error:.1%}")
    console.print(table)
    if len(found.tensors) > SHOWN:
        said(f"and {len(found.tensors) - SHOWN} more")
    problem_lines(found.problems)
    facts(
        [
            ("out", found.out),
            ("error", f"{found.error:.1%} of ‖Δ‖, what is left out included"),
            ("time", f"{found.seconds:.1f} s"),
        ]
    )
