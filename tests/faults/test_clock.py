"""A clock that is a year off changes times that are shown, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from support.fault_cases import Models, opened, whole

from registry import releasing
from registry.catalog import events

YEAR = timedelta(days=365)


def shifted(by: timedelta) -> type[datetime]:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            return datetime.now(UTC) + by

    return Clock


@pytest.mark.parametrize("by", [YEAR, -YEAR])
def test_versions_and_latest_follow_the_order_of_publishing_not_the_clock(
    tmp_path: Path, by: timedelta
) -> None:
    models = Models.write(tmp_path / "models")
    with opened(tmp_path / "r") as registry:
        registry.publish("x", models.base, models.first)
        wrong = shifted(by)
        with (
            patch.object(releasing, "datetime", wrong),
            patch.object(events, "datetime", wrong),
        ):
            second = registry.publish("x", models.base, models.second).release
        assert abs(second.created_at - datetime.now(UTC) - by) < timedelta(hours=1)
        assert registry.catalog.get_release("x") == second and second.version == 2
        assert [event.event.detail["version"] for event in registry.log("x")] == [2, 1]
        before = registry.catalog.all_releases()
        assert whole(registry) == {1, 2}
    for path in (tmp_path / "r").glob("catalog.db*"):
        path.unlink()
    with opened(tmp_path / "r") as registry:
        assert not registry.reindex().problems
        assert registry.catalog.all_releases() == before
        assert registry.catalog.get_release("x").version == 2
