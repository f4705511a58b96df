"""What must agree in a manifest of sound fields: order, paths, digests, places, products."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

from paramdelta.digest import content_digest
from paramdelta.dtypes import ARITHMETIC, EIGHT_BIT, EIGHT_BIT_VALUES
from paramdelta.errors import InvalidError
from paramdelta.manifest import Manifest, Place, Product, StoredTensor
from paramdelta.paths import PathNames


def check_agreement(manifest: Manifest, where: object) -> None:
    """InvalidError naming *where* and what contradicts the rest."""
    _check_order(manifest, where)
    _check_paths(manifest, where)
    _check_contents(manifest, where)
    _check_places(manifest, where)
    _check_products(manifest, where)


def _check_order(manifest: Manifest, where: object) -> None:
    """Names are unique and sorted."""
    for field, names in (
        ("base.tensors", [tensor.name for tensor in manifest.base.tensors]),
        ("post.tensors", [tensor.name for tensor in manifest.post.tensors]),
        ("tensors", [entry.name for entry in manifest.tensors]),
        ("products", [product.name for product in manifest.products]),
        ("weights", [file.path for file in manifest.weights]),
        ("files", [file.path for file in manifest.files]),
    ):
        if any(a >= b for a, b in pairwise(names)):
            raise InvalidError(f"{field} are not sorted and unique", where=where)


def _check_paths(manifest: Manifest, where: object) -> None:
    """All files can lie in one folder, on systems that ignore case too."""
    names = PathNames()
    for path in [*(f.path for f in manifest.weights), *(f.path for f in manifest.files)]:
        if other := names.add(path):
            raise InvalidError(f"takes the place of {other}", where=where, subject=path)


def _check_contents(manifest: Manifest, where: object) -> None:
    """A content digest is that of the tensors; an adapter's base lists only some of its own."""
    if manifest.base.kind != "checkpoint":
        raise InvalidError("a base is a checkpoint", where=where)
    for side, source in (("base", manifest.base), ("post", manifest.post)):
        if side == "base" and manifest.is_adapter:
            continue
        rows = ((t.name, t.dtype, t.shape, t.digest) for t in source.tensors)
        if content_digest(rows) != source.content_digest:
            raise InvalidError(
                f"the {side}'s content digest is not that of its tensors", where=where
            )


def _check_places(manifest: Manifest, where: object) -> None:
    """Every place lies in its stored tensor, and the post's tensors are covered exactly once."""
    base = {tensor.name: tensor for tensor in manifest.base.tensors}
    post = {tensor.name: tensor for tensor in manifest.post.tensors}
    covered: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry in manifest.tensors:
        reason = _misplaced(entry.post, entry.dtype, entry.shape, post)
        if reason is None and entry.base and entry.base_dtype and entry.base_shape is not None:
            reason = _misplaced(entry.base, entry.base_dtype, entry.base_shape, base)
        if reason is not None:
            raise InvalidError(reason, where=where, subject=entry.name)
        covered[entry.post.tensor].append((entry.post.start, entry.elements))
    for name, tensor in post.items():
        position = 0
        for start, elements in sorted(covered[name]):
            if start != position:
                break
            position += elements
        if position != tensor.elements or name not in covered or not covered[name]:
            raise InvalidError("not covered by its entries", where=where, subject=name)


def _misplaced(
    place: Place, dtype: str, shape: tuple[int, ...], table: Mapping[str, StoredTensor]
) -> str | None:
    stored = table.get(place.tensor)
    if stored is None:
        return f"lies in {place.tensor[:100]!r}, which is not listed"
    if place.start + math.prod(shape) > stored.elements:
        return f"lies beyond the end of {place.tensor}"
    eight_bit = stored.dtype in EIGHT_BIT and dtype == EIGHT_BIT_VALUES
    if stored.dtype != dtype and not eight_bit:
        return f"is {dtype}, and {place.tensor} is {stored.dtype}"
    if place.scale is None:
        return None
    scales = table.get(place.scale.tensor)
    if not eight_bit or scales is None or place.start or len(shape) != 2:
        return "has scales that are no block scales of it"
    wanted = (-(-shape[0] // place.scale.rows), -(-shape[1] // place.scale.columns))
    if scales.shape != wanted or scales.dtype not in ARITHMETIC:
        return f"has scales of {list(scales.shape)}; {list(wanted)} expected"
    return None


def _check_products(manifest: Manifest, where: object) -> None:
    """The factors of a product are there, of float dtypes and of its shape."""
    if manifest.products and not manifest.is_adapter:
        raise InvalidError("products in a delta that is not an adapter's", where=where)
    entries = {entry.name: entry for entry in manifest.tensors}
    for product in manifest.products:
        for name, shape in zip((product.left, product.right), _factor_shapes(product), strict=True):
            entry = entries.get(name)
            if entry is None or entry.kind != "factor" or entry.dtype not in ARITHMETIC:
                raise InvalidError(
                    f"{name[:100]!r} is no factor of it", where=where, subject=product.name
                )
            long = 1 if product.transposed and name == product.right else 0
            fits = len(entry.shape) == 2 and entry.shape[1 - long] == shape[1 - long]
            if not fits or entry.shape[long] < shape[long]:
                raise InvalidError(
                    f"{name} is {list(entry.shape)}; {list(shape)} expected",
                    where=where,
                    subject=product.name,
                )
        if product.name in entries:
            raise InvalidError("two deltas of one tensor", where=where, subject=product.name)


def _factor_shapes(product: Product) -> tuple[tuple[int, int], tuple[int, int]]:
    """(L, R) of a product; the side that counts Δ's rows may be longer than this."""
    rows, columns = product.row + product.shape[0], product.shape[1]
    if product.transposed:
        return (columns, product.rank), (product.rank, rows)
    return (rows, product.rank), (product.rank, columns)
