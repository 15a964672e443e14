"""Which version could not serve, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_004"
down_revision = "0_1_003"


def upgrade() -> None:
    """Add the columns."""
    for name in ("refused", "reason"):
        op.add_column("rollouts", sa.Column(name, sa.String()))
