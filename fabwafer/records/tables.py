"""The tables of the records. A change here needs a migration beside it, and a new SCHEMA."""

from typing import Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)

from fabwafer.messages.bodies import CONTEXT_FIELDS

SCHEMA: Final = "0_1_002"
"""The migration that this program was written for: the minor version that it belongs to, and its number in it."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the type is exactly INTEGER.
_Id = BigInteger().with_variant(Integer(), "sqlite")


def _context_columns() -> list[Column[str]]:
    return [Column(name, String) for name in CONTEXT_FIELDS]


def _index_context(table: Table) -> None:
    # Partial: most fabs send one or two of these fields, and a NULL is never looked for.
    for name in CONTEXT_FIELDS:
        given = table.c[name].is_not(None)
        Index(f"ix_{table.name}_{name}", table.c[name], sqlite_where=given, postgresql_where=given)


wafers = Table(
    "wafers",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("fab", String, nullable=False),
    Column("camera", String, nullable=False),
    Column("imgid", String, nullable=False),
    # When anything was last received about it, ms: what was touched last is listed first.
    Column("received", BigInteger, nullable=False, index=True),
    UniqueConstraint("fab", "camera", "imgid"),
)

shots = Table(
    "shots",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("wafer_id", _Id, ForeignKey("wafers.id"), nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # sha256 of the file; stays when the file is forgotten
    *_context_columns(),
    Column("extra", JSON(none_as_null=True)),  # the fields that we do not know
    # Last, so that SQLite reads the columns before it without following the file's pages; NULL once forgotten.
    Column("file", LargeBinary),
    # The same file with the same moment of capture is one shot that was sent again.
    UniqueConstraint("wafer_id", "timestamp", "digest"),
)
_index_context(shots)
Index(
    "ix_shots_received",
    shots.c.received,
    sqlite_where=shots.c.file.is_not(None),
    postgresql_where=shots.c.file.is_not(None),
)

predictions = Table(
    "predictions",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("wafer_id", _Id, ForeignKey("wafers.id"), nullable=False),
    Column("source", String, nullable=False),
    Column("model", String, nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # An answer of a candidate on trial: never the current one, never an alert.
    Column("shadow", Boolean, nullable=False),
    Column("prediction", String, nullable=False),
    Column("probability", Double, nullable=False),
    Column("probabilities", JSON(none_as_null=True)),
    Column("wafer", Boolean),
    Column("review", Boolean),
    # What the model server counted on the map; the yield is passed / (passed + failed).
    Column("rows", Integer),
    Column("columns", Integer),
    Column("passed", Integer),
    Column("failed", Integer),
    Column("regions", Integer),
    Column("largest", Integer),
    *_context_columns(),
    Column("extra", JSON(none_as_null=True)),
    Column("embedding", LargeBinary),  # float16, little endian
    UniqueConstraint("wafer_id", "source", "model", "timestamp"),
)
_index_context(predictions)
Index(
    "ix_predictions_shadow",
    predictions.c.model,
    sqlite_where=predictions.c.shadow.is_(True),
    postgresql_where=predictions.c.shadow.is_(True),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", String, primary_key=True),  # made of the prediction's key, so that it survives a restored backup
    Column("prediction_id", _Id, ForeignKey("predictions.id"), nullable=False, unique=True),
    Column("threshold", Double, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("pending", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("error", String),
)
Index(
    "ix_alerts_pending",
    alerts.c.attempts,
    alerts.c.received,
    alerts.c.id,
    sqlite_where=alerts.c.pending.is_(True),
    postgresql_where=alerts.c.pending.is_(True),
)

thresholds = Table(
    "thresholds",
    metadata,
    # Empty means any: a primary key holds no NULL.
    Column("fab", String, primary_key=True),
    Column("camera", String, primary_key=True),
    Column("label", String, primary_key=True),
    Column("value", Double, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("wafer_id", _Id, ForeignKey("wafers.id"), nullable=False, index=True),
    Column("label", String, nullable=False),
    Column("reviewer", String, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("note", String),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("champion", String, nullable=False),
    Column("candidate", String),
    Column("share", Double, nullable=False),
    Column("author", String, nullable=False),
    Column("time", BigInteger, nullable=False),
)
