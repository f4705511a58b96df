"""Everything about a release on one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from paramdelta.errors import ConflictError, NotFoundError
from paramdelta.problem import Problem
from registry.facade.applying import Applying
from registry.facade.core import ref_of
from registry.facade.measuring import Measuring
from registry.facade.releases import Releases
from registry.records import Release
from registry.results import Profiled, Reported


class Reporting(Applying, Measuring, Releases):
    """Everything about a release on one page."""

    def report(
        self, delta: str, html: Path, *, full: bool = False, force: bool = False
    ) -> Reported:
        """Writes the page. ConflictError if the file exists and not *force*.

        full: reads every element of the delta and of its own base, for the sizes of the changes
        and the stable ranks; else nothing but catalog, manifest and sketches is read.
        """
        from paramdelta.files import check_folder_of, replace_file
        from paramdelta.plots.style import check_matplotlib
        from registry.report.collect import collect
        from registry.report.page import render

        check_matplotlib()
        check_folder_of(html)
        if html.exists() and not force:
            raise ConflictError("exists", where=html, remedy="another --html, or --force")
        detail = self.show(delta)
        found = collect(
            self.catalog, self.artifacts, detail, lambda: self._profiled(detail.release, full)
        )
        page = render(found).encode()
        replace_file(html, page)
        return Reported(found.ref, str(html), len(page), found.problems)

    def _profiled(self, release: Release, full: bool) -> Profiled:
        """From the manifest alone, or from every element and, where it is there, the own base."""
        from registry.profiling import profile_delta

        manifest, base, missing = self._manifest(release.digest), None, []
        if full:
            try:
                base = self._own_base(manifest, release).open(self.progress)
            except NotFoundError as error:
                missing.append(Problem("own base", f"not read: {error.message}", "warning"))
        found = profile_delta(
            self.artifacts, manifest, ref_of(release), base, 8 if full else 0,
            threads=self.settings.threads, progress=self.progress,
        )  # fmt: skip
        return dataclasses.replace(found, problems=(*missing, *found.problems))
