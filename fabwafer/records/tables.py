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

SCHEMA: Final = "0_1_004"
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
    # When anything was last received about it, ms: the newest come first in lists.
    Column("received", BigInteger, nullable=False),
    # Copies for the filters of lists, so that no list reads the predictions of a million wafers. The transactions that
    # store predictions and reviews write them. The current prediction's id is no foreign key: predictions refer to
    # wafers already.
    Column("current_id", BigInteger),
    Column("label", String),  # the class and the probability of the current prediction, which never change
    Column("probability", Double),
    Column("alert", Boolean, nullable=False),  # whether any prediction raised one
    Column("reviewed", Boolean, nullable=False),
    Column("needs_review", Boolean, nullable=False),  # the current prediction asks for one, and there is none
    # Serves fab with camera and imgid, and lists by name.
    UniqueConstraint("fab", "camera", "imgid"),
)
# Lists with the newest first read an index in its order and stop when the page is full:
# - without a filter, since and until, a probability range, and flags that are false: most of them match so many that a
#   page is soon full; at worst the whole table is read once, half a second at a million wafers.
Index("ix_wafers_received", wafers.c.received, wafers.c.id)
# - a camera with its fab, and a fab alone, whose rows may be sorted
Index("ix_wafers_camera", wafers.c.fab, wafers.c.camera, wafers.c.received, wafers.c.id)
# - a class, also with a probability range
Index("ix_wafers_label", wafers.c.label, wafers.c.received, wafers.c.id)
# - flags that are true, which few wafers have
for _name in ("alert", "reviewed", "needs_review"):
    _true = wafers.c[_name].is_(True)
    Index(f"ix_wafers_{_name}", wafers.c.received, wafers.c.id, sqlite_where=_true, postgresql_where=_true)
# - an imgid alone finds few wafers, which are sorted. So do lot, slot and the like, by the indexes on shots and
#   predictions below.
Index("ix_wafers_imgid", wafers.c.imgid)

shots = Table(
    "shots",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("wafer_id", _Id, ForeignKey("wafers.id"), nullable=False),
    Column("timestamp", BigInteger, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # sha256 of the file; stays when the file is deleted
    *_context_columns(),
    Column("extra", JSON(none_as_null=True)),  # the fields that fabwafer does not know
    # Last, so that SQLite reads the columns before it without following the file's pages; NULL once deleted by age.
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
    Column("review_reason", String),
    Column("review_detail", String),
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

drawings = Table(
    "drawings",
    metadata,
    Column("fab", String, primary_key=True),
    Column("camera", String, primary_key=True),  # empty: of all cameras of the fab
    Column("colours", String, nullable=False),  # StatedColours as JSON
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
    # The version that could not serve, where this rollout was set for that, and why.
    Column("refused", String),
    Column("reason", String),
)
