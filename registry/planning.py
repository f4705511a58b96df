"""From references to a plan, and what an apply needs besides: device, card, a safe output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paramdelta import delta
from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, UsageError
from paramdelta.limits import MAX_PATH_PART_BYTES
from paramdelta.manifest import Manifest
from registry import query
from registry.apply import Add
from registry.artifacts import Artifacts
from registry.behaviours import output_files
from registry.card import model_card
from registry.catalog import Catalog
from registry.plan import Plan, PlanBase
from registry.publish import card_license
from registry.resolver import Candidate, Options, resolve
from registry.sources import Located, location_of

DTYPES = {"bf16": "BF16", "bfloat16": "BF16", "fp16": "F16", "float16": "F16", "f16": "F16",
          "fp32": "F32", "float32": "F32", "f32": "F32"}  # fmt: skip
DEVICES = ("auto", "cpu", "cuda")
_NVIDIA = Path("/dev/nvidiactl")


def parse_dtype(text: str | None) -> str | None:
    """A safetensors dtype from the names that people use."""
    if text is None:
        return None
    try:
        return DTYPES[text.lower()]
    except KeyError:
        raise UsageError(
            f"unknown dtype {text!r}", remedy="one of: bfloat16, float16, float32"
        ) from None


def choose_device(text: str) -> str:
    """``cpu`` or ``cuda``. ``auto`` looks for an NVIDIA driver before it pays for torch."""
    if text not in DEVICES:
        raise UsageError(f"unknown device {text!r}", remedy=f"one of: {', '.join(DEVICES)}")
    if text == "cpu" or (text == "auto" and not _NVIDIA.exists()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if text == "cuda":
        raise UsageError(
            "no CUDA device", remedy="leave out --device, or install a CUDA build of torch"
        )
    return "cpu"


def adder(device: str) -> Add:
    """The rule on a device. The bits are the same on every one."""
    if device == "cpu":
        return delta.add
    from functools import partial

    from paramdelta.torch_rule import add_on_device

    return partial(add_on_device, device=device)


def make_plan(
    catalog: Catalog,
    artifacts: Artifacts,
    located: Located,
    candidates: Sequence[Candidate],
    options: Options,
) -> Plan:
    """The plan of *candidates* on the base at *located*; IncompatibleError with all problems."""
    checkpoint = located.headers()
    target = query.target_of(located, catalog, checkpoint)
    registered = located.base or catalog.find_base_by_location(location_of(located))
    remote = located.hub
    name = registered.name if registered else remote.ref if remote else located.path.name
    base = PlanBase(
        ref=name,
        location=located.path,
        license=card_license(checkpoint),
        content_digest=Digest(target.content_digest) if target.content_digest else None,
        architecture_hash=target.fingerprint.architecture_hash,
        tokenizer_hash=target.fingerprint.tokenizer_hash,
        remote=remote,
    )
    files = output_files(artifacts, checkpoint, candidates, options.keep_base_behaviour)
    return resolve(candidates, checkpoint, base, target.fingerprint, options, files)


def card_of(plan: Plan, artifacts: Artifacts) -> str:
    """The model card of *plan*."""
    licenses: list[tuple[str, str | None]] = [(plan.base.ref, plan.base.license)]
    for part in plan.deltas:
        manifest = Manifest.from_bytes(artifacts.read_manifest(part.digest), part.ref)
        licenses.append((part.ref, manifest.post.license))
    remote = plan.base.remote
    return model_card(plan, remote.repo if remote else None, licenses)


def check_out(out: Path, kept: Sequence[Path], force: bool) -> None:
    """ConflictError if *out* exists without *force*, or would replace what must stay.

    kept: the base's folder and the registry's own. Neither they nor a folder above them, nor one
    inside them, may be the output.
    """
    if any(len(part.encode()) > MAX_PATH_PART_BYTES for part in out.parts):
        raise UsageError("a name in the output's path is too long", where=out)
    if out.is_symlink():
        raise ConflictError("the output is a symbolic link", where=out, remedy="name its target")
    real = out.resolve()
    for folder in kept:
        other = folder.resolve()
        if real == other or real in other.parents or other in real.parents:
            raise ConflictError(
                f"the output overlaps {other}, which must stay as it is",
                where=out,
                remedy="choose another folder for --out",
            )
    if out.exists() and not force:
        raise ConflictError(
            "the output exists", where=out, remedy="choose another folder, or say --force"
        )
    if out.exists() and not out.is_dir():
        raise ConflictError("the output is a file", where=out, remedy="choose another name")
