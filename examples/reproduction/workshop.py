"""Makes every model of some recipes, each once: two at a time, kept by key, gone on with when run
again.

A model's folder appears at its name when it is complete. ``ABOUT.json`` beside the models says with
what text and versions they were trained; another text or version takes another folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path

from examples.reproduction.recipes import Line, Recipe, Scale

Say = Callable[[str], None]


class Workshop:
    """root: of the models, by text and versions and then by key."""

    def __init__(self, root: Path, say: Say) -> None:
        self.circumstances = circumstances()
        said = json.dumps(self.circumstances, sort_keys=True).encode()
        self._folder = root / hashlib.sha256(said).hexdigest()[:12]
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "ABOUT.json").write_text(json.dumps(self.circumstances, indent=2) + "\n")
        self._say = say

    def folder_of(self, recipe: Recipe) -> Path:
        return self._folder / recipe.key

    def registry_of(self, scale: Scale) -> Path:
        """The registry's folder: another one for other models, which bear the same names."""
        keys = [recipe.key for seed in scale.seeds for recipe in Line(seed, scale).all]
        said = json.dumps([self._folder.name, keys]).encode()
        return self._folder.parent.parent / f"registry-{hashlib.sha256(said).hexdigest()[:8]}"

    def make(self, recipes: Sequence[Recipe], processes: int) -> None:
        """Parents first. processes: 0 trains in this one."""
        wanted = {one.key: one for recipe in recipes for one in _with_ancestors(recipe)}
        missing = [one for one in wanted.values() if not self.folder_of(one).is_dir()]
        if not missing:
            return
        self._say(f"{len(missing)} of {len(wanted)} models to train")
        if processes:
            self._make_beside(missing, processes)
        else:
            for recipe in missing:
                self._told(recipe, _make(self._folder, recipe))

    def _make_beside(self, missing: Sequence[Recipe], processes: int) -> None:
        # spawned: torch's threads do not survive a fork
        pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"))
        running: dict[Future[float], Recipe] = {}
        left = list(missing)
        with pool:
            while left or running:
                for recipe in list(left):
                    if len(running) < processes and self._is_ready(recipe):
                        left.remove(recipe)
                        running[pool.submit(_make, self._folder, recipe)] = recipe
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    self._told(running.pop(future), future.result())

    def _is_ready(self, recipe: Recipe) -> bool:
        return all(self.folder_of(one).is_dir() for one in recipe.needs)

    def _told(self, recipe: Recipe, seconds: float) -> None:
        self._say(f"trained {recipe.name} (seed {recipe.seed}) in {seconds:.0f} s")


def _with_ancestors(recipe: Recipe) -> Iterator[Recipe]:
    for needed in recipe.needs:
        yield from _with_ancestors(needed)
    yield recipe


def _losses_path(root: Path, recipe: Recipe) -> Path:
    """Beside the model, whose folder holds what transformers wrote and nothing else."""
    return root / f"{recipe.key}.losses.json"


def _make(root: Path, recipe: Recipe) -> float:
    """In a process of the pool; the seconds that it took."""
    from examples.reproduction.training import train

    started = time.monotonic()
    out = root / recipe.key
    part = root / f"{recipe.key}.{os.getpid()}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    losses = train(recipe, lambda one: root / one.key, part)
    _losses_path(root, recipe).write_text(json.dumps([round(loss, 6) for loss in losses]))
    try:
        part.rename(out)
    except OSError:
        if not out.is_dir():
            raise
        shutil.rmtree(part)  # another run was faster, and made the same
    return time.monotonic() - started


def circumstances() -> dict[str, str]:
    """What a model's bits depend on besides its recipe, as far as it is known."""
    import torch
    import transformers

    from examples.family import texts

    found = texts.read_texts()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "prose_sha256": texts.digest(found.prose),
        "code_sha256": texts.digest(found.code),
    }
