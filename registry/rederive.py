"""Proves a resolved model: hash it, and make it again from its recipe without writing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paramdelta.checkpoint import Checkpoint
from paramdelta.dtypes import Bits
from paramdelta.errors import (
    IncompatibleError,
    InvalidError,
    NotFoundError,
    ParamDeltaError,
    UsageError,
)
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem, Severity
from registry import planning, resolver
from registry.apply import Outcome, execute, outcome_of
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.model_folder import hash_model
from registry.model_record import ModelRecord, read_model_record
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
    record = read_model_record(folder)
    promised = record.content_digest
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
    registry: Workplace, record: ModelRecord, folder: Path, base: str | None, found: str
) -> list[Problem]:
    """Carries the recipe out without writing; the digests must agree."""
    plan = plan_of(registry, record, folder, base)
    outcome = make_again(registry, plan)
    problems = []
    if outcome.base_digest != record.base_digest:
        problems.append(Problem(plan.base.ref, "not the base that the model was made from"))
    elif outcome.content_digest != found:
        problems.append(
            Problem(str(folder), f"its recipe makes {outcome.content_digest}, it is {found}")
        )
    return problems


def make_again(registry: Workplace, plan: Plan) -> Outcome:
    """Carries *plan* out without writing."""
    checkpoint = open_again(plan.base.location, plan.base.remote, registry.progress)
    done = execute(
        plan,
        checkpoint,
        registry.artifacts,
        _nowhere,
        threads=registry.threads,
        progress=registry.progress,
        task="re-derive",
        devices=planning.devices_of(plan.device),
    )
    return outcome_of(plan, checkpoint, done)


def plan_of(registry: Workplace, record: ModelRecord, folder: Path, base: str | None) -> Plan:
    """The plan of the recipe in *folder*. base: where it lies; None: where it is registered.

    NotFoundError where base or deltas are not here, InvalidError where the recipe is malformed.
    """
    located = locate(base, registry.catalog) if base else _base_of(registry, record)
    try:
        return _plan_of(registry, record, located)
    except UsageError as error:  # the words are the record's, not the user's
        raise InvalidError(f"malformed recipe: {error.reason}", where=folder) from error


def _nowhere(tensor: str, offset: int, data: Bits) -> None:
    return None


def _plan_of(registry: Workplace, record: ModelRecord, located: Located) -> Plan:
    candidates = []
    for part in record.deltas:
        data = registry.artifacts.read_manifest(part.digest)
        candidates.append(
            Contribution(part.ref, Manifest.from_bytes(data, part.digest), part.alpha)
        )
    options = resolver.Options(
        method=record.method,
        options=record.options,
        alpha_for=record.alpha_for,
        dtype=record.dtype,
        device="cpu",
        keep_base_behaviour=record.keep_base_behaviour,
        align=resolver.parse_align(record.align),
    )
    return planning.make_plan(registry.catalog, registry.artifacts, located, candidates, options)


def _base_of(registry: Workplace, record: ModelRecord) -> Located:
    for base in registry.catalog.find_base_by_content(record.base_digest):
        try:
            return locate_base(base)
        except ParamDeltaError:
            continue
    raise NotFoundError(
        "the base of this model is not registered here, or its folder is gone",
        subject=record.base_digest,
        remedy="give it with --base",
    )
