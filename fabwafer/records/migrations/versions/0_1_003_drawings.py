"""Why a prediction asks for a review, and what the colours of drawings mean."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_003"
down_revision = "0_1_002"


def upgrade() -> None:
    """Add the columns and the table."""
    for name in ("review_reason", "review_detail"):
        op.add_column("predictions", sa.Column(name, sa.String()))
    op.create_table(
        "drawings",
        sa.Column("fab", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("colours", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("fab", "camera", name="pk_drawings"),
    )
