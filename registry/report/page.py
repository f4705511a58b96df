"""The page: one file, no script, no request. What comes from strangers is escaped by ``html``."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from paramdelta import __version__
from paramdelta.analysis import module_of
from paramdelta.problem import Problem
from registry.report import figures
from registry.report.collect import Report, alphas_of
from registry.report.html import Markup, Node, code, details, facts, section, table, tag
from registry.results import Neighbour, SketchedPair
from registry.sources import HUB_SCHEME

# nothing may be loaded or run, whatever a text on the page says
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_GOOD = {"identical": "good", "compatible": "good", "adaptable": "warn", "incompatible": "bad"}
_TONE = {"note": "faint", "warning": "warn", "error": "bad"}


def render(report: Report) -> str:
    style = files("registry.report").joinpath("style.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=f"paramdelta {__version__}"),
        tag("title", f"{report.ref}: delta report"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        _header(report),
        tag(
            "main",
            _numbers(report),
            section("How to use it", *_recipe(report)),
            section("Lineage", figures.lineage_figure(report)),
            section("Bases", *_fits(report)),
            section("Scores", *_scores(report)),
            section("What changes", *_profile(report)),
            section("Nearest deltas", *_near(report)),
            section("Compression", *_compression(report)),
            section("Sources and licences", *_sources(report)),
            section("Files", *_files(report)),
            section("History", _history(report)),
            section("What could not be said", _problems(report.problems)),
        ),
        _footer(),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en").text + "\n"


def _header(report: Report) -> Markup:
    release, summary = report.release, report.release.summary
    badges = [
        _badge("proved lossless", "good")
        if summary.exact
        else _badge("some files were left out", "warn"),
        _badge(release.license or "licence not stated", "good" if release.license else "warn"),
        _badge(f"yanked: {release.yanked}", "bad") if release.yanked else None,
        *(_badge(f"{key}={value}", "faint") for key, value in release.tags.items()),
    ]
    return tag(
        "header",
        tag("h1", report.ref),
        tag("p", release.description, class_="lead") if release.description else None,
        tag("p", *badges),
        facts(
            [
                ("digest", tag("code", release.digest)),
                ("author", release.author),
                ("made", f"{release.created_at:%Y-%m-%d %H:%M} UTC"),
            ]
        ),
    )


def _badge(text: str, tone: str) -> Markup:
    return tag("span", text, class_=f"badge {tone}")


def _numbers(report: Report) -> Markup:
    summary = report.release.summary
    total = report.profile.to_json()["total"]
    cells = [
        (f"{summary.parameters:,}", f"parameters, {summary.dtype}"),
        (_size(summary.bytes_stored), f"stored of {_size(summary.bytes_raw)}"),
        (f"{summary.bits_per_weight:.2f}", "bits a weight"),
        (_share(total["relative_norm"]), "‖Δ‖ / ‖W‖"),
        (_share(total["zeros"]), "of the elements do not change"),
        (str(report.fits.fitting - _misfits(report)), "registered bases that it fits"),
    ]
    return tag("div", *(tag("div", tag("b", n), tag("span", t)) for n, t in cells),
               class_="numbers")  # fmt: skip


def _misfits(report: Report) -> int:
    return sum(match.verdict == "incompatible" for match in report.fits.results)


def _recipe(report: Report) -> list[Node]:
    ref, own = report.ref, report.release.summary.base_content_digest
    targets = [m.ref for m in report.fits.results
               if m.verdict != "incompatible" and m.digest != own]  # fmt: skip
    base = shlex.quote(targets[0]) if targets else "BASE"
    lines = [
        f"paramdelta check {ref} --base {base}",
        f"paramdelta apply {ref} --base {base} --out ./resolved",
        "paramdelta verify --model ./resolved",
        "",
        f"paramdelta restore {ref} --out ./original",
    ]
    recipe = f"base: {targets[0] if targets else 'BASE'}\nout: ./resolved\ndeltas:\n  - {ref}:1.0\n"
    return [
        tag("p", "Added to a base, or the post-trained model back, bit for bit:"),
        code("\n".join(lines)),
        details("as a recipe for paramdelta apply -f", code(recipe)),
    ]


def _fits(report: Report) -> list[Node]:
    own = report.release.summary.base_content_digest
    rows = [
        (
            match.ref + (" (its own)" if match.digest == own else ""),
            tag("span", match.verdict, class_=_GOOD[match.verdict]),
            _number(match.drift_ratio, "unknown"),
            _problems(match.problems),
        )
        for match in report.fits.results
    ]
    if not rows:
        return [tag("p", "No base is registered here.", class_="faint")]
    more = report.fits.fitting - len(rows)
    return [
        tag(
            "p",
            "Drift ratio: ‖base' − base‖ / ‖Δ‖. It is advice, not evidence: below 0.35 most of a "
            "skill was kept in what was measured, above 3.8 hardly anything.",
            class_="faint",
        ),
        table(("base", "verdict", "drift ratio", "reasons"), rows),
        tag("p", f"{more} more are not shown.", class_="faint") if more > 0 else None,
        figures.drift_figure(report),
    ]


def _scores(report: Report) -> list[Node]:
    if not report.scores:
        return [tag("p", "Nothing of it was evaluated here.", class_="faint")]
    rows = [
        (
            score.task,
            score.metric,
            f"{score.value:.4g}",
            f"±{score.stderr:.2g}" if score.stderr is not None else "",
            ", ".join(
                f"{alpha:g}·{ref}" for ref, alpha in alphas_of(view, report.release.digest).items()
            ),
            tag("code", score.model_digest[7:19]),
            f"{score.time:%Y-%m-%d}",
        )
        for view in report.scores
        if (score := view.score)
    ]
    heads = ("task", "metric", "value", "error", "alphas", "model", "when")
    return [figures.sweep_figure(report), table(heads, rows)]


def _profile(report: Report) -> list[Node]:
    found = report.profile.to_json()
    rows = [
        (
            row["name"],
            " × ".join(map(str, row["shape"])),
            f"{row['norm']:.3g}",
            _share(row["relative_norm"]),
            _share(row["zeros"]),
            _number(row["stable_rank"], ""),
        )
        for row in found["tensors"]
    ]
    heads = ("tensor", "shape", "‖Δ‖", "‖Δ‖ / ‖W‖", "zeros", "stable rank")
    return [
        figures.profile_figure(report),
        figures.ulps_figure(report),
        details(f"all {len(rows)} tensors", table(heads, rows)),
    ]


def _near(report: Report) -> list[Node]:
    near = report.near
    if not near.compared:
        return [tag("p", "No other delta of this architecture is here.", class_="faint")]
    heads = ("delta", "cosine", "error", "⟨a, b⟩ / ‖a‖²", "‖b‖ / ‖a‖", "beyond chance")
    tables: list[Node] = []
    for title, rows in (
        ("Nearest", near.nearest),
        ("Most interfering: those that undo some of it", near.interfering),
    ):
        if rows:
            tables += [tag("h3", title), table(heads, [_near_row(row) for row in rows])]
    chance = f"{near.by_chance:.3f}" if near.by_chance is not None else "unknown"
    told = f"{near.compared:,} deltas compared. So many unrelated ones would stay within ±{chance}."
    return [
        tag("p", told, class_="faint"),
        figures.near_figure(report),
        *tables,
        figures.pairs_figure(report),
        _layer_table(report),
    ]


def _near_row(one: Neighbour) -> tuple[Node, ...]:
    return (
        one.ref, f"{one.cosine:.3f}", f"±{one.cosine_stderr:.3f}", f"{one.projection:.3f}",
        f"{one.norm_ratio:.2f}", "yes" if one.significant else "no",
    )  # fmt: skip


def _layer_table(report: Report) -> Markup | None:
    pairs = [p for p in report.compared.pairs if isinstance(p, SketchedPair) and p.by_layer]
    if not pairs:
        return None
    layers = list(dict.fromkeys(layer for pair in pairs for layer in pair.by_layer))
    rows = []
    for layer in layers:
        cells = []
        for pair in pairs:
            part = pair.by_layer.get(layer)
            cells.append(_number(part.cosine if part else None, ""))
        rows.append((layer, *cells))
    return details("cosines by layer", table(("layer", *(pair.b for pair in pairs)), rows))


def _compression(report: Report) -> list[Node]:
    by_codec: Counter[str] = Counter()
    by_module: dict[str, Counter[str]] = {}
    for row in report.detail.tensors:
        patch = row["patch"]["size"] if row["patch"] else 0
        by_codec[row["stream"]["codec"]] += 1
        module = by_module.setdefault(module_of(row["name"]), Counter())
        elements = 1
        for length in row["shape"]:
            elements *= length
        module.update(elements=elements, stored=row["stream"]["size"], patch=patch)
    rows = [
        (
            name,
            f"{counts['elements']:,}",
            f"{counts['stored']:,}",
            f"{counts['patch']:,}",
            f"{8 * (counts['stored'] + counts['patch']) / counts['elements']:.2f}"
            if counts["elements"]
            else "",
        )
        for name, counts in sorted(by_module.items())
    ]
    codecs = ", ".join(f"{n} {codec}" for codec, n in sorted(by_codec.items()))
    products = len(report.detail.products)
    if products:
        codecs += f"; {products} products of two factors"
    heads = ("module", "elements", "bytes", "bytes for restore", "bits a weight")
    return [tag("p", f"Codecs: {codecs}."), table(heads, rows)]


def _sources(report: Report) -> list[Node]:
    detail, summary = report.detail, report.release.summary
    # a page is passed on: where folders lie on this machine is nobody's business
    lies = {b.name: b.location for b in report.bases if b.location.startswith(HUB_SCHEME)}
    bases = ", ".join(f"{name} ({lies[name]})" if name in lies else name for name in detail.bases)
    return [
        facts(
            [
                ("licence of the release", detail.release.license or "not stated"),
                ("licence of the base", detail.licenses["base"] or "not stated"),
                ("licence of the post", detail.licenses["post"] or "not stated"),
                ("own base", bases or "not registered here"),
                ("base content", tag("code", summary.base_content_digest)),
                ("post content", tag("code", summary.post_content_digest)),
                ("architecture", tag("code", summary.architecture_hash)),
                ("tokenizer", tag("code", summary.tokenizer_hash or "none")),
            ]
        )
    ]


def _files(report: Report) -> list[Node]:
    detail = report.detail
    rows = [
        (str(row["path"]), f"{row['size']:,}", tag("code", str(row["sha256"])))
        for row in detail.files
    ]
    return [
        details(f"the {len(rows)} files of the post", table(("file", "bytes", "sha256"), rows)),
        _list("Removed by the post-training", detail.removed),
        _list("Left out", detail.left_out),
    ]


def _list(title: str, names: Sequence[str]) -> Markup | None:
    if not names:
        return None
    return details(f"{title}: {len(names)}", tag("ul", *(tag("li", name) for name in names)))


def _history(report: Report) -> Markup:
    rows = [
        (f"{event.time:%Y-%m-%d %H:%M}", event.actor, event.action, _told(event.detail))
        for event in report.events
    ]
    return table(("time", "who", "what", "detail"), rows)


def _told(detail: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in detail.items())


def _problems(problems: Iterable[Problem]) -> Markup | None:
    lines = [
        tag("li", f"{problem.severity}: {problem}", class_=_TONE[problem.severity])
        for problem in problems
    ]
    return tag("ul", *lines) if lines else None


def _footer() -> Markup:
    text = f"Made by paramdelta {__version__} from its catalog and store. "
    return tag(
        "footer",
        tag("p", text + "The page holds everything it shows; nothing is loaded.", class_="faint"),
    )


def _number(value: float | None, otherwise: str) -> str:
    return otherwise if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:.1%}" if value >= 0.001 or value == 0 else f"{value:.2e}"


def _size(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
