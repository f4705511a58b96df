"""From references to a plan, and what an apply needs besides: device, card, a safe output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, UsageError
from paramdelta.limits import MAX_PATH_PART_BYTES
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem
from registry import query
from registry.artifacts import Artifacts
from registry.behaviours import Wishes, surroundings
from registry.card import model_card
from registry.catalog import Catalog
from registry.licences import card_license, license_problems
from registry.plan import Plan, PlanBase
from registry.resolver import Options, resolve
from registry.small_files import TOKENIZER, PostFiles
from registry.sources import Located, location_of
from registry.tensor_plan import BaseTensors, Contribution
from registry.token_merge import place_tokens

if TYPE_CHECKING:  # torch is paid for only where a device is used
    from registry.device_apply import Devices

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


def choose_device(text: str) -> tuple[str, str]:
    """(``cpu`` or ``cuda``, why). ``auto`` looks for an NVIDIA driver before it pays for torch."""
    if text not in DEVICES:
        raise UsageError(f"unknown device {text!r}", remedy=f"one of: {', '.join(DEVICES)}")
    if text == "cpu":
        return "cpu", "as asked"
    if text == "auto" and not _NVIDIA.exists():
        return "cpu", "auto: no NVIDIA driver here"
    import torch

    if torch.cuda.is_available():
        return "cuda", "as asked" if text == "cuda" else "auto: a CUDA device is here"
    if text == "cuda":
        raise UsageError(
            "no CUDA device", remedy="leave out --device, or install a CUDA build of torch"
        )
    return "cpu", "auto: an NVIDIA driver, but no device that this torch can use"


def devices_of(device: str) -> Devices | None:
    """Where the rule is computed; None for the processor. The bits are the same everywhere."""
    if device == "cpu":
        return None
    from registry.device_apply import cuda_devices

    return cuda_devices()


def make_plan(
    catalog: Catalog,
    artifacts: Artifacts,
    located: Located,
    candidates: Sequence[Contribution],
    options: Options,
) -> Plan:
    """The plan of *candidates* on the base at *located*; IncompatibleError with all problems."""
    checkpoint = located.headers()
    target = query.target_of(located, catalog, checkpoint)
    registered = located.base or catalog.find_base_by_location(location_of(located))
    remote = located.hub
    name = registered.name if registered else remote.ref if remote else located.path.name
    base_ref = PlanBase(
        ref=name,
        location=located.path,
        license=card_license(checkpoint),
        content_digest=Digest(target.content_digest) if target.content_digest else None,
        architecture_hash=target.fingerprint.architecture_hash,
        tokenizer_hash=target.fingerprint.tokenizer_hash,
        remote=remote,
    )
    config = checkpoint.json_file("config.json") or {}
    base = BaseTensors.of(checkpoint.tensors, config, checkpoint.path)
    problems = list(checkpoint.left_out)
    if options.align == "tokens":
        candidates = [placed(artifacts, part, checkpoint, problems) for part in candidates]
    licences = [(f"base {name}", base_ref.license)]
    for part in candidates:
        licences.append((f"delta {part.ref}", part.manifest.post.license))
    problems += license_problems(licences)
    wishes = Wishes(options.keep_base_behaviour, options.dtype)
    beside = surroundings(artifacts, checkpoint, base, candidates, wishes)
    beside = replace(beside, problems=[*problems, *beside.problems])
    return resolve(candidates, base, base_ref, target.fingerprint, options, beside)


def placed(
    artifacts: Artifacts, part: Contribution, base: Checkpoint, problems: list[Problem]
) -> Contribution:
    """The delta with its ids placed in the base's vocabulary by token string."""
    post = PostFiles(artifacts, part.manifest)
    places = place_tokens(part.manifest, post, base.json_file(TOKENIZER))
    if places is None:
        reason = f"no tokenizer.json in the base or in {part.ref}: tokens cannot be aligned"
        problems.append(Problem(TOKENIZER, reason, remedy="put the tokenizer beside the weights"))
        return part
    if places.lost:
        names = ", ".join(places.lost[:5])
        reason = f"{len(places.lost)} tokens of {part.ref} are not in this base ({names}, …)"
        problems.append(Problem(TOKENIZER, f"{reason}; their rows are left out", "warning"))
    if places.untouched:
        reason = f"{places.untouched} tokens of this base are unknown to {part.ref}"
        problems.append(Problem(TOKENIZER, f"{reason}; their rows stay", "note"))
    return replace(part, tokens=places)


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
