"""What happened, appended in the transaction in which it did."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert

from registry.catalog.checks import given
from registry.catalog.schema import EVENTS


def log(
    connection: Connection, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    values = {
        "time": datetime.now(UTC),
        "actor": given(EVENTS.c.actor, actor),
        "action": action,
        "subject": subject,
        "detail": dict(detail),
    }
    connection.execute(insert(EVENTS).values(values))
