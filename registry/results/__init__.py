"""What the façade returns: frozen values whose JSON has the keys that users' scripts read."""

from registry.results.applying import Applied, AppliedPart, ExportedLora, MethodView, RestoredView
from registry.results.bases import BaseView
from registry.results.collecting import Collected, Garbage
from registry.results.evaluating import (
    Evaluated,
    Evidence,
    ScoreView,
    SweepRow,
    Swept,
    Transferred,
)
from registry.results.matching import CheckResult, Match, QueryResult
from registry.results.measuring import (
    Compared,
    ComparedPair,
    DriftRow,
    Neighbour,
    Neighbours,
    Profiled,
    SketchedPair,
)
from registry.results.releases import EventView, Published, ReleaseDetail, ReleaseView
from registry.results.reporting import Reported
from registry.results.signing import Signed
from registry.results.transferring import MovedRelease, TransferResult
from registry.results.upkeep import (
    DatabaseState,
    DatabaseUpgraded,
    DoctorLine,
    Reindexed,
    VerifyResult,
)

__all__ = [
    "Applied",
    "AppliedPart",
    "BaseView",
    "CheckResult",
    "Collected",
    "Compared",
    "ComparedPair",
    "DatabaseState",
    "DatabaseUpgraded",
    "DoctorLine",
    "DriftRow",
    "Evaluated",
    "EventView",
    "Evidence",
    "ExportedLora",
    "Garbage",
    "Match",
    "MethodView",
    "MovedRelease",
    "Neighbour",
    "Neighbours",
    "Profiled",
    "Published",
    "QueryResult",
    "Reindexed",
    "ReleaseDetail",
    "ReleaseView",
    "Reported",
    "RestoredView",
    "ScoreView",
    "Signed",
    "SketchedPair",
    "SweepRow",
    "Swept",
    "TransferResult",
    "Transferred",
    "VerifyResult",
]
