"""What is sent to a catalog's database, and how the database would find it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from registry.catalog import Catalog


@contextmanager
def statements_of(catalog: Catalog) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database meanwhile: texts and parameters."""
    found: list[tuple[str, Any]] = []

    def keep(connection, cursor, text, parameters, context, many) -> None:  # type: ignore
        if text.startswith("SELECT"):
            found.append((text, parameters))

    sa.event.listen(catalog._engine, "before_cursor_execute", keep)
    yield found
    sa.event.remove(catalog._engine, "before_cursor_execute", keep)


def explained(catalog: Catalog, statement: str, parameters: Any) -> str:
    """The database's plan for a statement, as on a table too large to be read whole."""
    engine = catalog._engine
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            for setting in ("enable_seqscan", "enable_bitmapscan"):
                connection.exec_driver_sql(f"SET LOCAL {setting} = off")
            rows = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
        else:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return " ".join(str(row) for row in rows)
