"""The tables of version 0.1."""

import sqlalchemy as sa
from alembic import op

revision = "0_1_001"
down_revision = None

_CONTEXT = ("lot", "slot", "product", "tool", "step", "notch")


def _id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _context() -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String()) for name in _CONTEXT]


def _partial_index(table: str, columns: list[str], condition: str, name: str | None = None) -> None:
    where = sa.text(condition)
    op.create_index(name or f"ix_{table}_{columns[0]}", table, columns, sqlite_where=where, postgresql_where=where)


def _refers_to(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}")


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "wafers",
        sa.Column("id", _id(), nullable=False),
        sa.Column("fab", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("imgid", sa.String(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_wafers"),
        sa.UniqueConstraint("fab", "camera", "imgid", name="uq_wafers_fab_camera_imgid"),
    )
    op.create_index("ix_wafers_received", "wafers", ["received"])
    op.create_table(
        "shots",
        sa.Column("id", _id(), nullable=False),
        sa.Column("wafer_id", _id(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        *_context(),
        sa.Column("extra", sa.JSON()),
        sa.Column("file", sa.LargeBinary()),
        _refers_to("shots", "wafer_id", "wafers"),
        sa.PrimaryKeyConstraint("id", name="pk_shots"),
        sa.UniqueConstraint("wafer_id", "timestamp", "digest", name="uq_shots_wafer_id_timestamp_digest"),
    )
    _partial_index("shots", ["received"], "file IS NOT NULL")
    op.create_table(
        "predictions",
        sa.Column("id", _id(), nullable=False),
        sa.Column("wafer_id", _id(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("shadow", sa.Boolean(), nullable=False),
        sa.Column("prediction", sa.String(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("probabilities", sa.JSON()),
        sa.Column("wafer", sa.Boolean()),
        sa.Column("review", sa.Boolean()),
        *(sa.Column(name, sa.Integer()) for name in ("rows", "columns", "passed", "failed", "regions", "largest")),
        *_context(),
        sa.Column("extra", sa.JSON()),
        sa.Column("embedding", sa.LargeBinary()),
        _refers_to("predictions", "wafer_id", "wafers"),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.UniqueConstraint(
            "wafer_id", "source", "model", "timestamp", name="uq_predictions_wafer_id_source_model_timestamp"
        ),
    )
    for table in ("shots", "predictions"):
        for field in _CONTEXT:
            _partial_index(table, [field], f"{field} IS NOT NULL")
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("prediction_id", _id(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String()),
        _refers_to("alerts", "prediction_id", "predictions"),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
        sa.UniqueConstraint("prediction_id", name="uq_alerts_prediction_id"),
    )
    true = "1" if op.get_bind().dialect.name == "sqlite" else "true"
    _partial_index("alerts", ["attempts", "received", "id"], f"pending IS {true}", "ix_alerts_pending")
    op.create_table(
        "thresholds",
        sa.Column("fab", sa.String(), nullable=False),
        sa.Column("camera", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("fab", "camera", "label", name="pk_thresholds"),
    )
    op.create_table(
        "reviews",
        sa.Column("id", _id(), nullable=False),
        sa.Column("wafer_id", _id(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.String()),
        _refers_to("reviews", "wafer_id", "wafers"),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
    )
    op.create_index("ix_reviews_wafer_id", "reviews", ["wafer_id"])
    op.create_table(
        "rollouts",
        sa.Column("id", _id(), nullable=False),
        sa.Column("champion", sa.String(), nullable=False),
        sa.Column("candidate", sa.String()),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
    )
