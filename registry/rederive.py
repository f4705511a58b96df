"""Proves a resolved model: hash it, and make it again from its recipe without writing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import parse_digest
from paramdelta.dtypes import Bits
from paramdelta.errors import IncompatibleError, InvalidError, NotFoundError, ParamDeltaError
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem, Severity
from registry import planning, resolver
from registry.apply import execute, outcome_of
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.model_folder import hash_model, read_record, recorded_digest
from registry.plan import Plan
from registry.progress import Progress
from registry.results import VerifyResult
from registry.sources import Located, locate, locate_base, open_again
from registry.tensor_plan import Contribution


@dataclass(frozen=True, slots=True)
class Workplace:
    """What is needed to make a model again."""

    catalog: Catalog
    artifacts: Artifacts
    threads: int
    progress: Progress


def verify_model(registry: Workplace, folder: Path, base: str | None) -> VerifyResult:
    """The folder's content against its record, and against the recipe carried out again.

    Where base or deltas cannot be reached only the first is done, and a warning says so.
    """
    record = read_record(folder)
    promised = recorded_digest(record, folder)
    checkpoint = Checkpoint.open(folder)
    found = hash_model(checkpoint, registry.threads, registry.progress)
    problems = []
    if found != promised:
        problems.append(
            Problem(
                str(folder),
                f"its content is {found}, its record says {promised}",
                remedy="apply again from its recipe",
            )
        )
    rederived = 0
    try:
        problems += _again(registry, record, folder, base, found)
        rederived = 1
    except (NotFoundError, IncompatibleError) as error:
        severity: Severity = "warning" if isinstance(error, NotFoundError) else "error"
        problems.append(Problem("recipe", f"not re-derived: {error.message}", severity))
    checked = {
        "tensors": len(checkpoint.tensors),
        "bytes": checkpoint.nbytes,
        "rederived": rederived,
    }
    return VerifyResult(checked, tuple(problems), found)


def _again(
    registry: Workplace, record: Mapping[str, Any], folder: Path, base: str | None, found: str
) -> list[Problem]:
    """Carries the recipe out without writing; the digests must agree."""
    try:
        plan = _plan_of(registry, record, folder, base)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"malformed recipe: {error}", where=folder) from error
    checkpoint = open_again(plan.base.location, plan.base.remote, registry.progress)
    done = execute(
        plan,
        checkpoint,
        registry.artifacts,
        _nowhere,
        threads=registry.threads,
        progress=registry.progress,
        task="re-derive",
        add=planning.adder(plan.device),
    )
    outcome = outcome_of(plan, checkpoint, done)
    problems = []
    if outcome.base_digest != record["base"]["content_digest"]:
        problems.append(Problem(plan.base.ref, "not the base that the model was made from"))
    elif outcome.content_digest != found:
        problems.append(
            Problem(str(folder), f"its recipe makes {outcome.content_digest}, it is {found}")
        )
    return problems


def _nowhere(tensor: str, offset: int, data: Bits) -> None:
    return None


def _plan_of(
    registry: Workplace, record: Mapping[str, Any], folder: Path, base: str | None
) -> Plan:
    candidates = []
    for part in record["deltas"]:
        digest = parse_digest(part["digest"], folder)
        data = registry.artifacts.read_manifest(digest)
        manifest = Manifest.from_bytes(data, digest)
        candidates.append(Contribution(str(part["ref"]), manifest, float(part["alpha"])))
    options = resolver.Options(
        method=record["method"],
        options=record["options"],
        alpha_for=[(str(pattern), float(alpha)) for pattern, alpha in record["alpha_for"]],
        dtype=record["dtype"],
        device="cpu",
        keep_base_behaviour=bool(record["keep_base_behaviour"]),
        align=resolver.parse_align(str(record["align"])),
    )
    located = locate(base, registry.catalog) if base else _base_of(registry, record, folder)
    return planning.make_plan(registry.catalog, registry.artifacts, located, candidates, options)


def _base_of(registry: Workplace, record: Mapping[str, Any], folder: Path) -> Located:
    digest = parse_digest(record["base"]["content_digest"], folder)
    for base in registry.catalog.find_base_by_content(digest):
        try:
            return locate_base(base)
        except ParamDeltaError:
            continue
    raise NotFoundError(
        "the base of this model is not registered here, or its folder is gone",
        subject=digest,
        remedy="give it with --base",
    )
