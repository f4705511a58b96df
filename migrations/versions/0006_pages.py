"""An index of what is listed, so that a page far into it is as fast as the first.

A listing steps over all names before its page. Only this index has them without those of deltas
that have no latest release, and with what finds the row: no row is read to be passed over.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    listed = sa.text("latest_id IS NOT NULL")
    op.create_index(
        "ix_deltas_listed", "deltas", ["name", "id"], sqlite_where=listed, postgresql_where=listed
    )
