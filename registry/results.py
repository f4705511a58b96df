"""What the façade returns: frozen values whose JSON has the keys that users' scripts read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paramdelta.digest import Digest
from paramdelta.problem import Problem, errors_of
from registry.records import Base, Event, Release

if TYPE_CHECKING:  # plans need numpy, and most commands show none
    from paramdelta.analysis import PairSums
    from paramdelta.profile import TensorProfile
    from registry.lost import Lost
    from registry.plan import Plan


def _problems(problems: tuple[Problem, ...]) -> list[dict[str, str]]:
    return [problem.to_json() for problem in problems]


@dataclass(frozen=True, slots=True)
class BaseView:
    """problems: what is to be said of a base that was just added."""

    base: Base
    created: bool = False
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        base = self.base
        return {
            "name": base.name,
            "location": base.location,
            "revision": base.revision,
            "architecture_hash": base.architecture_hash,
            "tokenizer_hash": base.tokenizer_hash,
            "content_digest": base.content_digest,
            "parameters": base.parameters,
            "bytes": base.nbytes,
            "dtype": base.dtype,
            "license": base.license,
            "created_at": base.created_at.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Published:
    release: Release
    created: bool
    base: str
    seconds: float
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        release, summary = self.release, self.release.summary
        return {
            "ref": f"{release.name}@{release.version}",
            "name": release.name,
            "version": release.version,
            "digest": release.digest,
            "created": self.created,
            "base": self.base,
            "parameters": summary.parameters,
            "bytes_raw": summary.bytes_raw,
            "bytes_stored": summary.bytes_stored,
            "bits_per_weight": summary.bits_per_weight,
            "exact": summary.exact,
            "codecs": summary.codecs,
            "seconds": self.seconds,
            "problems": _problems(self.problems),
        }


@dataclass(frozen=True, slots=True)
class ReleaseView:
    release: Release

    def to_json(self) -> dict[str, Any]:
        release, summary = self.release, self.release.summary
        return {
            "ref": f"{release.name}@{release.version}",
            "name": release.name,
            "version": release.version,
            "digest": release.digest,
            "author": release.author,
            "created_at": release.created_at.isoformat(),
            "description": release.description,
            "license": release.license,
            "tags": dict(release.tags),
            "yanked": release.yanked,
            "architecture_hash": summary.architecture_hash,
            "tokenizer_hash": summary.tokenizer_hash,
            "base_content_digest": summary.base_content_digest,
            "post_content_digest": summary.post_content_digest,
            "parameters": summary.parameters,
            "dtype": summary.dtype,
            "bytes_raw": summary.bytes_raw,
            "bytes_stored": summary.bytes_stored,
            "bits_per_weight": summary.bits_per_weight,
            "exact": summary.exact,
            "codecs": dict(summary.codecs),
        }


@dataclass(frozen=True, slots=True)
class ReleaseDetail:
    """A release, the bases known to be its own, and its manifest's tensors and files."""

    release: Release
    bases: tuple[str, ...]
    tensors: tuple[Mapping[str, Any], ...]
    files: tuple[Mapping[str, Any], ...]
    removed: tuple[str, ...]
    left_out: tuple[str, ...]
    licenses: Mapping[str, str | None]
    products: tuple[Mapping[str, Any], ...] = ()  # of an adapter

    def to_json(self) -> dict[str, Any]:
        return ReleaseView(self.release).to_json() | {
            "bases": list(self.bases),
            "base_license": self.licenses["base"],
            "post_license": self.licenses["post"],
            "tensors": [dict(row) for row in self.tensors],
            "products": [dict(row) for row in self.products],
            "files": [dict(row) for row in self.files],
            "removed": list(self.removed),
            "left_out": list(self.left_out),
        }


@dataclass(frozen=True, slots=True)
class EventView:
    event: Event

    def to_json(self) -> dict[str, Any]:
        event = self.event
        return {
            "time": event.time.isoformat(),
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "detail": dict(event.detail),
        }


@dataclass(frozen=True, slots=True)
class Match:
    """One delta against one base. drift_ratio: None where a sketch is missing."""

    ref: str
    digest: Digest | str
    verdict: str
    problems: tuple[Problem, ...]
    drift_ratio: float | None
    description: str = ""
    tags: Mapping[str, str] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "digest": self.digest,
            "verdict": self.verdict,
            "problems": _problems(self.problems),
            "drift_ratio": self.drift_ratio,
            "description": self.description,
            "tags": dict(self.tags or {}),
        }


@dataclass(frozen=True, slots=True)
class QueryResult:
    """results: ranked, best first, from the place *offset* on. fitting: how many there are in all.
    hidden: how many lie under the asked verdict. problems: about what was asked, not one match.

    subject is ``base`` or ``delta``: what was asked about.
    """

    subject: Literal["base", "delta"]
    ref: str
    results: tuple[Match, ...]
    hidden: int
    fitting: int
    offset: int = 0
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            self.subject: self.ref,
            "results": [match.to_json() for match in self.results],
            "hidden": self.hidden,
            "fitting": self.fitting,
            "offset": self.offset,
            "problems": _problems(self.problems),
        }


@dataclass(frozen=True, slots=True)
class CheckResult:
    ref: str
    base: str
    verdict: str
    problems: tuple[Problem, ...]
    drift_ratio: float | None

    @property
    def ok(self) -> bool:
        return self.verdict != "incompatible" and not errors_of(self.problems)

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "base": self.base,
            "verdict": self.verdict,
            "problems": _problems(self.problems),
            "drift_ratio": self.drift_ratio,
        }


@dataclass(frozen=True, slots=True)
class MethodView:
    """A line of the METHODS table. options: (name, default, what is allowed, what it says)."""

    name: str
    paper: str
    equation: str
    options: tuple[tuple[str, float | int | str, str, str], ...]

    @classmethod
    def table(cls) -> list[MethodView]:
        from paramdelta.methods import METHODS

        return [
            cls(
                method.name,
                method.paper,
                method.equation,
                tuple((o.name, o.default, o.allowed, o.says) for o in method.options),
            )
            for method in METHODS.values()
        ]

    def to_json(self) -> dict[str, Any]:
        keys = ("name", "default", "allowed", "says")
        return {
            "name": self.name,
            "paper": self.paper,
            "equation": self.equation,
            "options": [dict(zip(keys, option, strict=True)) for option in self.options],
        }


@dataclass(frozen=True, slots=True)
class Applied:
    out: str
    content_digest: Digest
    plan: Plan
    seconds: float
    device: str
    lost: tuple[Lost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        from registry.lost import summary

        return {
            "out": self.out,
            "content_digest": self.content_digest,
            "lost_updates": summary(self.lost),
            "plan": self.plan.to_json(),
            "seconds": self.seconds,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class RestoredView:
    ref: str
    out: str
    files: Mapping[str, Digest]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "out": self.out,
            "files": dict(self.files),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """checked: what was looked at, by kind."""

    checked: Mapping[str, int]
    problems: tuple[Problem, ...]
    content_digest: Digest | None = None

    @property
    def ok(self) -> bool:
        return not errors_of(self.problems)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "ok": self.ok,
            "checked": dict(self.checked),
            "problems": _problems(self.problems),
        }
        return found | ({"content_digest": self.content_digest} if self.content_digest else {})


@dataclass(frozen=True, slots=True)
class Reindexed:
    """releases: in the store. added: how many of them the catalog had not."""

    releases: int
    added: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "releases": self.releases,
            "added": self.added,
            "problems": _problems(self.problems),
        }


@dataclass(frozen=True, slots=True)
class MovedRelease:
    """created: whether the release was not there before."""

    ref: str
    digest: Digest
    created: bool


@dataclass(frozen=True, slots=True)
class TransferResult:
    """verb: ``pushed`` or ``pulled``. store: the other store's address. nbytes: of blobs sent."""

    verb: Literal["pushed", "pulled"]
    store: str
    releases: tuple[MovedRelease, ...]
    blobs_sent: int
    blobs_skipped: int
    nbytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            self.verb: [release.ref for release in self.releases],
            "store": self.store,
            "releases": [
                {"ref": release.ref, "digest": release.digest, "created": release.created}
                for release in self.releases
            ],
            "blobs_sent": self.blobs_sent,
            "blobs_skipped": self.blobs_skipped,
            "bytes": self.nbytes,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class DoctorLine:
    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class ExportedLora:
    """error: ‖Δ − B·A‖ / ‖Δ‖ of the whole delta. tensors: (name, rank, its error)."""

    ref: str
    out: str
    rank: int
    error: float
    tensors: tuple[tuple[str, int, float], ...]
    problems: tuple[Problem, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        rows = [{"name": n, "rank": rank, "error": error} for n, rank, error in self.tensors]
        return {
            "ref": self.ref,
            "out": self.out,
            "rank": self.rank,
            "error": self.error,
            "tensors": rows,
            "problems": _problems(self.problems),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two deltas, element by element."""

    a: str
    b: str
    whole: PairSums
    by_module: Mapping[str, PairSums]
    by_layer: Mapping[str, PairSums]

    def to_json(self) -> dict[str, Any]:
        return (
            {"a": self.a, "b": self.b, "sketch": False}
            | self.whole.to_json()
            | {
                "by_module": {kind: sums.to_json() for kind, sums in self.by_module.items()},
                "by_layer": {layer: sums.to_json() for layer, sums in self.by_layer.items()},
            }
        )


@dataclass(frozen=True, slots=True)
class SketchedPair:
    """Two deltas by their sketches: estimates. cosine_stderr: their standard error."""

    a: str
    b: str
    cosine: float
    cosine_stderr: float
    norm_a: float
    norm_b: float

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "sketch": True,
            "cosine": self.cosine,
            "cosine_stderr": self.cosine_stderr,
            "sign_agreement": None,
            "norm_a": self.norm_a,
            "norm_b": self.norm_b,
            "norm_ratio": self.norm_b / self.norm_a if self.norm_a else None,
        }


@dataclass(frozen=True, slots=True)
class Compared:
    pairs: tuple[ComparedPair | SketchedPair, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": [pair.to_json() for pair in self.pairs],
            "problems": _problems(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Profiled:
    """What a delta looks like, tensor by tensor."""

    ref: str
    tensors: tuple[TensorProfile, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        from paramdelta.profile import total

        return {
            "ref": self.ref,
            "total": total(list(self.tensors)),
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "problems": _problems(self.problems),
        }
