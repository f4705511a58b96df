"""Which registered base or published delta some content is."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from paramdelta.errors import NotFoundError, ParamDeltaError
from paramdelta.problem import Problem
from registry.catalog import Catalog
from registry.model_folder import hash_model
from registry.progress import Progress
from registry.sources import HUB_SCHEME, locate, location_of


def base_of_content(catalog: Catalog, digest: str) -> str:
    """A registered base's name. NotFoundError."""
    found = catalog.find_base_by_content(digest)
    if not found:
        raise NotFoundError(
            "the recipe's base is not registered here", subject=digest, remedy="give --base REF"
        )
    return found[0].name


def find_delta_of(
    catalog: Catalog, base: str, threads: int, progress: Progress
) -> Callable[[str], str | Problem]:
    """A model's path or name → the newest release that is *base*'s way to it, or why there is none.

    Models are compared by content: what the catalog does not know is read and hashed.
    """
    digests: dict[str, str] = {}

    def content(ref: str) -> str:
        if ref not in digests:
            located = locate(reference_of(ref, catalog), catalog)
            known = located.base or catalog.find_base_by_location(location_of(located))
            digests[ref] = (
                known.content_digest if known else hash_model(located.open(), threads, progress)
            )
        return digests[ref]

    def find(model: str) -> str | Problem:
        command = f"paramdelta publish NAME --base {shlex.quote(base)} --post {shlex.quote(model)}"
        try:
            wanted = (content(base), content(model))
        except ParamDeltaError as error:
            return Problem(model, error.message)
        for release in reversed(catalog.all_releases()):
            summary = release.summary
            made = (summary.base_content_digest, summary.post_content_digest)
            if made == wanted and not release.yanked:
                return f"{release.name}@{release.version}"
        return Problem(model, f"no published delta makes it from {base}", remedy=f"`{command}`")

    return find


def reference_of(text: str, catalog: Catalog) -> str:
    """As another tool names a model: a folder, or a hub repository without a scheme."""
    if text.startswith(HUB_SCHEME) or Path(text).expanduser().exists():
        return text
    try:
        return catalog.get_base(text).name
    except ParamDeltaError:
        return f"{HUB_SCHEME}{text}" if text.count("/") == 1 and text[0] not in "./~" else text
