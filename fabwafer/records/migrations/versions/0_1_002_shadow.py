"""What a candidate said is found without reading what all others did."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_002"
down_revision = "0_1_001"


def upgrade() -> None:
    """Makes the index."""
    true = "1" if op.get_bind().dialect.name == "sqlite" else "true"
    where = sa.text(f"shadow IS {true}")
    op.create_index("ix_predictions_shadow", "predictions", ["model"], sqlite_where=where, postgresql_where=where)
