"""An index of what is listed, so that a page far into it is as fast as the first.

A listing steps over all names before its page. This index has with each name what tells whether it
is listed, and what finds the row: no row is read to be passed over.
"""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_deltas_listed", "deltas", ["name", "latest_id", "id"])
