"""The pictures of a report."""

from __future__ import annotations

from paramdelta.errors import InvalidError
from paramdelta.expectation import UNRELATED
from paramdelta.plots import sweeps
from paramdelta.plots.lineage import Edge, Node, lineage
from paramdelta.plots.style import Picture, to_svg
from registry import plotting
from registry.report.collect import Report, alphas_of
from registry.report.html import Markup, tag
from registry.results import Compared, Match

MAX_NODES = 6  # of a column of the lineage


def figure(picture: Picture, caption: str, salt: str) -> Markup:
    svg = Markup(to_svg(picture, salt))
    return tag(
        "figure",
        tag("div", svg, role="img", aria_label=picture.alt),
        tag("figcaption", caption),
    )


def lineage_figure(report: Report) -> Markup:
    own = report.release.summary.base_content_digest
    notes = f"{report.release.summary.bits_per_weight:.2f} bits a weight"
    delta = Node("delta", "delta", report.ref, notes, main=True)
    bases: list[Node] = []
    edges: list[Edge] = []
    for match in report.fits.results:
        if match.verdict == "incompatible" or len(bases) == MAX_NODES:
            continue
        is_own = match.digest == own
        id = f"base {match.ref}"
        bases.append(Node(id, "base", match.ref, "its own base" if is_own else _fit(match)))
        if is_own:
            edges.append(Edge(id, "delta"))
        elif match.drift_ratio is None or match.drift_ratio <= UNRELATED:
            edges.append(Edge("delta", id, dashed=True))
    if not any(match.digest == own for match in report.fits.results):
        bases.insert(0, Node("own", "base", f"{own[7:19]}…", "its own base, not registered here"))
        edges.insert(0, Edge("own", "delta"))
    models = []
    for digest, alphas in _models(report)[:MAX_NODES]:
        mixed = " + ".join(f"{alpha:g}·{ref}" for ref, alpha in alphas.items())
        models.append(Node(digest, "model", f"{digest[7:19]}…", mixed))
        edges.append(Edge("delta", digest))
    near = [
        Node(f"delta {one.ref}", "delta", one.ref, f"cosine {one.cosine:.2f}")
        for one in report.near.nearest[: MAX_NODES // 2]
        if one.significant
    ]
    picture = lineage([*bases, delta, *near, *models], edges)
    caption = (
        "Arrows: taken from, made into. Dashed: bases of this registry that it may be added to. "
        "Below the delta: its nearest relatives by cosine. Models are those that were scored."
    )
    return figure(picture, caption, "lineage")


def _fit(match: Match) -> str:
    drift = "unknown" if match.drift_ratio is None else f"{match.drift_ratio:.2f}"
    return f"{match.verdict}, drift {drift}"


def _models(report: Report) -> list[tuple[str, dict[str, float]]]:
    found = {
        view.score.model_digest: alphas
        for view in reversed(report.scores)
        if (alphas := alphas_of(view, report.release.digest))
    }
    return list(found.items())


def profile_figure(report: Report) -> Markup | None:
    try:
        picture = plotting.profile_picture(report.profile)
    except InvalidError:
        return None  # nothing changes
    caption = "How far each kind of module moved, relative to the weights it started from."
    return figure(picture, caption, "profile")


def ulps_figure(report: Report) -> Markup | None:
    if not any(tensor.ulps is not None and any(tensor.ulps) for tensor in report.profile.tensors):
        return None
    caption = "Each change, in units of the distance of neighbouring numbers at its weight."
    return figure(plotting.ulps_picture(report.profile), caption, "ulps")


def near_figure(report: Report) -> Markup | None:
    if not (report.near.nearest or report.near.interfering):
        return None
    caption = (
        "Estimated from sketches of 4,096 numbers, with standard errors. A low cosine does not "
        "say that two deltas work together; evaluate the mix."
    )
    return figure(plotting.neighbours_picture(report.near), caption, "near")


def pairs_figure(report: Report) -> Markup | None:
    pairs = tuple(pair for pair in report.compared.pairs if pair.by_layer)
    if not pairs:
        return None
    caption = "The nearest deltas by layer and module; grey is what random deltas would have."
    picture = plotting.parts_picture(Compared(pairs, ()))
    return figure(picture, caption, "pairs")


def drift_figure(report: Report) -> Markup | None:
    if not report.compared.drift:
        return None
    caption = "How far each base moved away from the delta's own, in lengths of the delta."
    return figure(plotting.drifts_picture(report.compared), caption, "drift")


def sweep_figure(report: Report) -> Markup | None:
    """Scores over the alpha of this delta, of models that it alone was added to."""
    rows = [
        sweeps.SweepRow(alpha, None, score.task, score.metric, score.value, score.stderr)
        for view in reversed(report.scores)
        if (score := view.score)
        if len(alphas := alphas_of(view, report.release.digest)) == 1
        for alpha in alphas.values()
    ]
    rows = list({(row.alpha, row.task, row.metric): row for row in rows}.values())
    if len({row.alpha for row in rows}) < 2:
        return None
    return figure(sweeps.alpha_curve(rows), "The newest score at every alpha.", "sweep")
