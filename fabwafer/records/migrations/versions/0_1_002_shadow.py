"""An index that finds a candidate's predictions without reading all the others."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_002"
down_revision = "0_1_001"


def upgrade() -> None:
    """Make the index."""
    true = "1" if op.get_bind().dialect.name == "sqlite" else "true"
    where = sa.text(f"shadow IS {true}")
    op.create_index("ix_predictions_shadow", "predictions", ["model"], sqlite_where=where, postgresql_where=where)
