"""Why a prediction asks for a review."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_003"
down_revision = "0_1_002"


def upgrade() -> None:
    """Add the columns."""
    for name in ("review_reason", "review_detail"):
        op.add_column("predictions", sa.Column(name, sa.String()))
