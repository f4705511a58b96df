"""A model to be measured: a plan that is carried out into memory, never onto a disk.

A checkpoint as it is, is the plan that adds nothing to it. So whatever a base may look like
(shards, eight-bit floats, a tied head's stale copy), it is measured as ``apply`` would write it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from paramdelta.digest import Digest, canonical_json, digest_of
from paramdelta.dtypes import ARITHMETIC, Bits, carrier
from paramdelta.limits import MAX_CARRIED_FILE_BYTES
from paramdelta.scoring import Held
from registry import planning
from registry.apply import execute, outcome_of
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.evaluation.recipes import made_model, recipe_digest
from registry.model_folder import check_base
from registry.plan import Plan
from registry.progress import Progress
from registry.records import MadeModel
from registry.resolver import Options
from registry.sources import Located

# what transformers reads to make a tokenizer and an empty model; no other file is given to it
LOADED = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "chat_template.jinja",
    "chat_template.json",
)  # fmt: skip
TORCH_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


@dataclass(frozen=True)
class Subject:
    """plan: with the base's content digest, which is always known here. name: what people call it.

    located: where the base lies.
    """

    plan: Plan
    name: str
    located: Located

    @property
    def base_digest(self) -> Digest:
        assert self.plan.base.content_digest is not None
        return self.plan.base.content_digest

    @property
    def is_made(self) -> bool:
        """Whether deltas are added; else the model is the base itself."""
        return bool(self.plan.deltas)

    @property
    def recipe(self) -> Digest:
        return recipe_digest(self.plan.recipe())

    def made(self, model_digest: str) -> MadeModel:
        return made_model(self.plan.recipe(), model_digest, self.name)

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Config, tokenizer and what goes with them, as the output folder would have them."""
        checkpoint = self.located.headers()
        return {
            file.path: file.data
            if file.data is not None
            else checkpoint.read_file(file.path, MAX_CARRIED_FILE_BYTES)
            for file in self.plan.files
            if file.path in LOADED
        }

    @cached_property
    def files_digest(self) -> Digest:
        return digest_of(canonical_json({n: digest_of(data) for n, data in self.files.items()}))

    @cached_property
    def dtype(self) -> str:
        """torch's name of the dtype of most parameters; float32 if there is no floating one."""
        counts: Counter[str] = Counter()
        for tensor in self.plan.tensors:
            if tensor.dtype in ARITHMETIC:
                counts[tensor.dtype] += tensor.elements
        return TORCH_NAMES[max(sorted(counts), key=counts.__getitem__)] if counts else "float32"


def hold(
    subject: Subject, artifacts: Artifacts, threads: int, progress: Progress
) -> tuple[dict[str, Held], Digest]:
    """The model's tensors in memory, by the exact rule, and the digest of their content: the one
    that ``apply`` would give. CorruptError if the base is not what it was."""
    plan = subject.plan
    arrays: dict[str, Bits] = {
        tensor.name: np.empty(tensor.elements, dtype=carrier(tensor.dtype))
        for tensor in plan.tensors
    }

    def sink(tensor: str, offset: int, data: Bits) -> None:
        start = offset // data.itemsize
        arrays[tensor][start : start + data.size] = data

    checkpoint = subject.located.open(progress)
    done = execute(
        plan, checkpoint, artifacts, sink,
        threads=threads, progress=progress, task=subject.name,
        devices=planning.devices_of(plan.device),
    )  # fmt: skip
    outcome = outcome_of(plan, checkpoint, done)
    check_base(plan, outcome)
    held = {t.name: Held(t.dtype, t.shape, arrays[t.name]) for t in plan.tensors}
    return held, outcome.content_digest if subject.is_made else outcome.base_digest


def plain_subject(
    catalog: Catalog, artifacts: Artifacts, located: Located, digest: Digest, device: str
) -> Subject:
    """A checkpoint as it is. digest: of its content."""
    plan = planning.make_plan(catalog, artifacts, located, [], Options(device=device))
    plan = replace(plan, base=replace(plan.base, content_digest=digest))
    return Subject(plan, plan.base.ref, located)
