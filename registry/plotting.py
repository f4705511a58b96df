"""Results as pictures: what the façade returns, in the words of ``paramdelta.plots``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paramdelta.analysis import OUTSIDE, layer_of, layer_order, module_of
from paramdelta.errors import InvalidError
from paramdelta.plots import drifts, profiles, similarity
from paramdelta.plots.style import Picture, save
from paramdelta.profile import TensorProfile
from registry.results import Compared, ComparedPair, DriftRow, Neighbours, Profiled, SketchedPair


def plot_compared(found: Compared, path: Path) -> None:
    """The pairs; where there are none, the drift."""
    save(pairs_picture(found) if found.pairs else drift_picture(found), path)


def plot_neighbours(found: Neighbours, path: Path) -> None:
    save(neighbours_picture(found), path)


def plot_profiled(found: Profiled, path: Path) -> None:
    """Sizes by layer and, with a base, the histogram beside the spacing of its numbers."""
    pictures = [profile_picture(found)]
    if any(tensor.ulps is not None and sum(tensor.ulps) for tensor in found.tensors):
        pictures.append(ulps_picture(found))
    save(stacked(pictures), path)


def stacked(pictures: list[Picture]) -> Picture:
    """One above the other."""
    if len(pictures) == 1:
        return pictures[0]

    def paint(figure: Any) -> None:
        parts = figure.subfigures(
            len(pictures), 1, height_ratios=[picture.height for picture in pictures]
        )
        for part, picture in zip(parts, pictures, strict=True):
            picture.paint(part)

    return Picture(
        max(picture.width for picture in pictures),
        sum(picture.height for picture in pictures),
        paint,
        "; ".join(picture.alt for picture in pictures),
    )


def pairs_picture(found: Compared) -> Picture:
    return similarity.cosines([_pair(pair) for pair in found.pairs])


def parts_picture(found: Compared) -> Picture:
    """Layers and modules alone."""
    return similarity.cosines([_pair(pair) for pair in found.pairs], matrix=False)


def _pair(pair: ComparedPair | SketchedPair) -> similarity.PairCosines:
    row = pair.to_json()
    return similarity.PairCosines(
        row["a"], row["b"], row["cosine"], _parts(row["by_layer"]), _parts(row["by_module"])
    )


def _parts(parts: Mapping[str, Mapping[str, Any]]) -> tuple[similarity.Cosine, ...]:
    return tuple(
        similarity.Cosine(
            label, row["cosine"], row.get("cosine_stderr"), row["null"]["cosine_stderr"]
        )
        for label, row in parts.items()
    )


def drift_picture(found: Compared) -> Picture:
    """Several deltas towards one base."""
    base = found.drift[0].base if found.drift else ""
    return drifts.drift([_drift(row, row.ref) for row in found.drift], f"towards {base}")


def drifts_picture(found: Compared) -> Picture:
    """One delta towards several bases."""
    bases = [row.base for row in found.drift]
    told = f"towards {bases[0]}" if len(bases) == 1 else "towards each base"
    return drifts.drift([_drift(row, row.base) for row in found.drift], told)


def _drift(row: DriftRow, name: str) -> drifts.DriftSeries:
    return drifts.DriftSeries(
        name,
        tuple((label, part.ratio) for label, part in row.by_layer.items()),
        tuple((label, part.ratio) for label, part in row.by_module.items()),
    )


def neighbours_picture(found: Neighbours) -> Picture:
    near, against = (
        [similarity.NeighbourDot(one.ref, one.cosine, one.cosine_stderr) for one in rows]
        for rows in (found.nearest, found.interfering)
    )
    return similarity.neighbours(found.ref, near, against, found.by_chance)


def profile_picture(found: Profiled) -> Picture:
    """‖Δ‖ / ‖W‖ where the base's norms are known, else ‖Δ‖ a √element."""
    known = [t for t in found.tensors if t.base_norm]
    if known:
        label, tensors = "‖Δ‖ / ‖W‖", known
    else:
        label, tensors = "‖Δ‖ / √elements", [t for t in found.tensors if t.elements]
    modules: dict[str, dict[str, float]] = {}
    outside: dict[str, float] = {}
    parts: dict[tuple[str, str], list[TensorProfile]] = {}
    for tensor in tensors:
        parts.setdefault((layer_of(tensor.name), module_of(tensor.name)), []).append(tensor)
    for (layer, module), group in parts.items():
        if layer == OUTSIDE:
            outside[module] = _size(group)
        else:
            modules.setdefault(module, {})[layer] = _size(group)
    layers = sorted({layer for row in modules.values() for layer in row}, key=layer_order)
    series = {
        module: [row.get(layer) for layer in layers] for module, row in sorted(modules.items())
    }
    return profiles.layer_profile(layers, series, outside, label)


def _size(group: list[TensorProfile]) -> float:
    delta = math.hypot(*(tensor.norm for tensor in group))
    if all(tensor.base_norm for tensor in group):
        return delta / math.hypot(*(tensor.base_norm or 0.0 for tensor in group))
    return delta / math.sqrt(sum(tensor.elements for tensor in group))


def ulps_picture(found: Profiled) -> Picture:
    total = found.to_json()["total"]["ulps"]
    if total is None:
        raise InvalidError("no base was read, so the spacing of its numbers is not known")
    measured = [tensor for tensor in found.tensors if tensor.ulps is not None]
    unchanged = sum(tensor.elements - tensor.nonzero for tensor in measured)
    return profiles.ulp_histogram(total["low"], total["counts"], unchanged)
