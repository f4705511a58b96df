"""What people see: rich tables on stdout, progress bars on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from paramdelta.problem import Problem

if TYPE_CHECKING:
    from registry.plan import Plan
    from registry.records import DeltaSummary
    from registry.results import (
        Applied,
        BaseView,
        CheckResult,
        Compared,
        DoctorLine,
        EventView,
        ExportedLora,
        MethodView,
        Profiled,
        Published,
        QueryResult,
        Reindexed,
        ReleaseDetail,
        ReleaseView,
        RestoredView,
        TransferResult,
        VerifyResult,
    )

# whoever reads a pipe wants whole names, not a terminal's 80 columns
PIPE_WIDTH = 200
console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
COLOURS = {
    "identical": "green", "compatible": "green", "adaptable": "yellow", "incompatible": "red",
    "ok": "green", "warn": "yellow", "fail": "red",
    "note": "dim", "warning": "yellow", "error": "red",
}  # fmt: skip
SHOWN = 12  # tensors of a list that are named


class Bars:
    """Bytes, rate and time left of one task after the other."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def begin(self, task: str, total: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task(task, total=total)
        self._progress.start()

    def advance(self, n: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, n)

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def said(text: str) -> None:
    console.print(escape(text))


def _short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def _stored(summary: DeltaSummary) -> str:
    sizes = f"{_size(summary.bytes_stored)} of {_size(summary.bytes_raw)}"
    return f"{sizes}, {summary.bits_per_weight:.2f} bits a weight"


def _coloured(word: str) -> str:
    return f"[{COLOURS.get(word, 'default')}]{escape(word)}[/]"


def _facts(rows: Iterable[tuple[str, object]]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(str(value)))
    console.print(table)


def _table(*columns: str) -> Table:
    """Columns with these heads; a name is folded rather than cut."""
    table = Table()
    for name in columns:
        table.add_column(name, overflow="fold", min_width=min(len(name), 6))
    return table


def _problems(problems: Sequence[Problem], indent: str = "  ") -> None:
    order = {"error": 0, "warning": 1, "note": 2}
    for problem in sorted(problems, key=lambda p: order[p.severity]):
        console.print(f"{indent}{_coloured(problem.severity)}: {escape(str(problem))}")


def _names(label: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        console.print(f"  {label}: {escape(', '.join(names[:SHOWN]))}{more}")


def base(view: BaseView) -> None:
    found = view.base
    _facts(
        [
            ("name", found.name),
            ("location", found.location),
            ("revision", found.revision or "none"),
            ("parameters", f"{found.parameters:,} ({found.dtype}, {_size(found.nbytes)})"),
            ("architecture", found.architecture_hash),
            ("tokenizer", found.tokenizer_hash or "none"),
            ("content", found.content_digest),
            ("licence", found.license or "not stated"),
        ]
    )
    _problems(view.problems, indent="")
    console.print(f"next: paramdelta query --base {escape(found.name)}", style="dim")


def bases(views: Sequence[BaseView]) -> None:
    if not views:
        said("no bases; register one with `paramdelta base add FOLDER`")
        return
    table = _table("name", "parameters", "dtype", "architecture", "tokenizer", "content")
    for view in views:
        found = view.base
        table.add_row(
            escape(found.name),
            f"{found.parameters:,}",
            found.dtype,
            _short(found.architecture_hash),
            _short(found.tokenizer_hash),
            _short(found.content_digest),
        )
    console.print(table)


def published(found: Published) -> None:
    release, summary = found.release, found.release.summary
    note = "" if found.created else " (was there)"
    _facts(
        [
            ("release", f"{release.name}@{release.version}{note}"),
            ("digest", release.digest),
            ("base", found.base),
            ("parameters", f"{summary.parameters:,}"),
            ("stored", _stored(summary)),
            ("exact", "yes: proved bit by bit" if summary.exact else "no: see the warnings"),
            ("time", f"{found.seconds:.1f} s"),
        ]
    )  # fmt: skip
    _problems(found.problems)
    console.print(f"next: paramdelta query --delta {escape(release.name)}", style="dim")


def releases(views: Sequence[ReleaseView]) -> None:
    if not views:
        said("no deltas; make one with `paramdelta publish NAME --base REF --post REF`")
        return
    table = _table("delta", "digest", "parameters", "stored", "bits a weight", "author", "made")
    for view in views:
        release, summary = view.release, view.release.summary
        table.add_row(
            escape(f"{release.name}@{release.version}"),
            _short(release.digest),
            f"{summary.parameters:,}",
            _size(summary.bytes_stored),
            f"{summary.bits_per_weight:.2f}",
            escape(release.author),
            f"{release.created_at:%Y-%m-%d %H:%M}",
        )
    console.print(table)


def detail(found: ReleaseDetail) -> None:
    release, summary = found.release, found.release.summary
    _facts(
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
            ("stored", _stored(summary)),
            ("codecs", ", ".join(f"{n} {codec}" for codec, n in summary.codecs.items())),
            ("exact", "yes" if summary.exact else "no: some files were left out"),
            ("files", ", ".join(str(row["path"]) for row in found.files)),
        ]
    )  # fmt: skip
    _names("removed by the post-training", found.removed)
    _names("left out", found.left_out)


def log(events: Sequence[EventView]) -> None:
    table = _table("time", "who", "what", "detail")
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
    return _short(text) if text.startswith("sha256:") else text


def query(found: QueryResult) -> None:
    if not found.fitting:
        said(f"nothing fits {found.ref}")
    else:
        table = _table("", "delta" if found.subject == "base" else "base", "verdict", "drift ratio")
        for rank, match in enumerate(found.results, found.offset + 1):
            drift = "unknown" if match.drift_ratio is None else f"{match.drift_ratio:.2f}"
            table.add_row(str(rank), escape(match.ref), _coloured(match.verdict), drift)
        console.print(table)
        for rank, match in enumerate(found.results, found.offset + 1):
            if match.problems:
                console.print(f"{rank} {escape(match.ref)}")
                _problems(match.problems)
        console.print(
            "the drift ratio is advice, not evidence: evaluate what you make", style="dim"
        )
    _problems(found.problems, indent="")
    end = found.offset + len(found.results)
    if end < found.fitting:
        said(f"{found.fitting - end} more fit: --offset {end} shows the next")
    if found.hidden:
        said(f"{found.hidden} more do not fit: --min-verdict incompatible shows why")


def check(found: CheckResult) -> None:
    console.print(f"{escape(found.ref)} on {escape(found.base)}: {_coloured(found.verdict)}")
    _problems(found.problems)


def plan(found: Plan) -> None:
    _facts(
        [
            ("base", found.base.ref),
            *(("delta", f"{d.ref} × {d.alpha:g}") for d in found.deltas),
            ("method", f"{_method(found)}, rule {found.rule}"),
            *(("alpha for", f"{pattern}: {alpha:g}") for pattern, alpha in found.alpha_for),
            ("dtype", found.dtype or "as the base"),
            ("device", found.device),
            ("tensors", ", ".join(f"{n} {what}" for what, n in _actions(found.counts) if n)),
            ("files", ", ".join(f"{file.path} ({file.origin})" for file in found.files)),
        ]
    )
    _behaviour(found)
    console.print(f"verdict: {_coloured(found.verdict)}")
    _problems(found.problems)


def _method(found: Plan) -> str:
    options = ", ".join(f"{key}={value}" for key, value in found.options.items())
    return f"{found.method} ({options})" if options else found.method


def methods(views: Sequence[MethodView]) -> None:
    table = _table("method", "merged Δ", "from", "options")
    for view in views:
        options = [f"{name}={default} ({allowed}): {says}" for name, default, allowed, says
                   in view.options]  # fmt: skip
        table.add_row(view.name, escape(view.equation), view.paper, escape("\n".join(options)))
    console.print(table)


def _behaviour(found: Plan) -> None:
    """How the output will behave otherwise than its base."""
    if not found.behaviour:
        return
    table = _table("behaviour", "in the base", "in the output")
    for change in found.behaviour[:SHOWN]:
        table.add_row(escape(change.subject), escape(change.before), escape(change.after))
    console.print(table)
    if len(found.behaviour) > SHOWN:
        said(f"and {len(found.behaviour) - SHOWN} more changes of behaviour")


def _actions(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    words = {"add": "added to", "copy": "copied", "replace": "replaced", "new": "new"}
    return [(words[action], n) for action, n in counts.items()]


def applied(found: Applied) -> None:
    plan(found.plan)
    _facts(
        [
            ("out", found.out),
            ("content", found.content_digest),
            ("time", f"{found.seconds:.1f} s on {found.device}"),
            *(("rounded away", text) for text in _lost(found)),
        ]
    )
    console.print(f"next: paramdelta verify --model {escape(found.out)}", style="dim")


def _lost(found: Applied) -> list[str]:
    lost = found.to_json()["lost_updates"]
    if lost is None:
        return []
    worst = "".join(f"; most in {row['name']}: {row['share']:.1%}" for row in lost["worst"][:1])
    return [f"{lost['share']:.1%} of the elements that the deltas change{worst}"]


def restored(found: RestoredView) -> None:
    table = _table("file", "sha256")
    for path, digest in found.files.items():
        table.add_row(escape(path), digest.removeprefix("sha256:"))
    console.print(table)
    said(f"{found.ref} is in {found.out}, bit for bit, after {found.seconds:.1f} s")


def transferred(found: TransferResult) -> None:
    table = _table("release", "digest", "")
    for release in found.releases:
        state = found.verb if release.created else "was there"
        table.add_row(escape(release.ref), _short(release.digest), state)
    console.print(table)
    rate = found.nbytes / found.seconds if found.seconds else 0.0
    said(
        f"{found.store}: {found.blobs_sent} blobs sent ({_size(found.nbytes)}, "
        f"{_size(rate)}/s), {found.blobs_skipped} were there"
    )


def exported(found: ExportedLora) -> None:
    table = _table("tensor", "rank", "error")
    for name, rank, error in found.tensors[:SHOWN]:
        table.add_row(escape(name), str(rank), f"{error:.1%}")
    console.print(table)
    if len(found.tensors) > SHOWN:
        said(f"and {len(found.tensors) - SHOWN} more")
    _problems(found.problems)
    _facts(
        [
            ("out", found.out),
            ("error", f"{found.error:.1%} of ‖Δ‖, what is left out included"),
            ("time", f"{found.seconds:.1f} s"),
        ]
    )


def compared(found: Compared) -> None:
    table = _table("a", "b", "cosine", "by chance", "sign agreement", "overlap", "‖b‖/‖a‖")
    for pair in found.pairs:
        row = pair.to_json()
        error = row["cosine_stderr"] if row["sketch"] else row["null"]["cosine_stderr"]
        table.add_row(
            escape(pair.a), escape(pair.b),
            _number(row["cosine"]) + (f" ± {error:.3f}" if row["sketch"] else ""),
            "0" if row["sketch"] else f"0 ± {error:.2g}",
            _number(row["sign_agreement"]), _number(row.get("overlap")), _number(row["norm_ratio"]),
        )  # fmt: skip
    console.print(table)
    for pair in found.pairs:
        row = pair.to_json()
        for word in ("by_module", "by_layer"):
            if parts := row.get(word):
                said(f"{pair.a} and {pair.b}, {word.replace('_', ' ')}")
                _parts(word.removeprefix("by_"), parts)
    _problems(found.problems)


def profiled(found: Profiled) -> None:
    document = found.to_json()
    rows = [*document["tensors"], document["total"] | {"name": "all of them"}]
    table = _table(
        "tensor", "‖Δ‖", "‖Δ‖/‖W‖", "zeros", "rounded away", "stable rank", "energy of the first"
    )
    for row in rows:
        energy = row.get("energy") or []
        shown = [f"{k}: {energy[k - 1]:.0%}" for k in (1, 8, 64, 512) if k <= len(energy)]
        table.add_row(
            escape(row["name"]), f"{row['norm']:.3g}", _number(row["relative_norm"]),
            _number(row["zeros"]), _number(row["below_half_ulp"]),
            _number(row.get("stable_rank")), ", ".join(shown),
        )  # fmt: skip
    console.print(table)
    _problems(found.problems)


def _parts(head: str, parts: Mapping[str, Mapping[str, float | None]]) -> None:
    table = _table(head, "cosine", "sign agreement", "overlap", "‖b‖/‖a‖")
    for name, row in parts.items():
        keys = ("cosine", "sign_agreement", "overlap", "norm_ratio")
        table.add_row(escape(name), *(_number(row[key]) for key in keys))
    console.print(table)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def verified(found: VerifyResult) -> None:
    checked = ", ".join(f"{n:,} {what}" for what, n in found.checked.items())
    console.print(f"{_coloured('ok' if found.ok else 'fail')}: {checked}")
    if found.content_digest:
        console.print(f"content {found.content_digest}")
    _problems(found.problems)


def reindexed(found: Reindexed) -> None:
    console.print(
        f"{_coloured('ok' if found.ok else 'fail')}: {found.releases} releases in the store, "
        f"{found.added} added to the catalog"
    )
    _problems(found.problems)


def doctor(lines: Sequence[DoctorLine]) -> None:
    table = _table("", "check", "found", "what to do")
    for line in lines:
        table.add_row(
            _coloured(line.status), line.name, escape(line.detail), escape(line.remedy or "nothing")
        )
    console.print(table)
