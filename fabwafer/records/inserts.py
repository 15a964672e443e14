"""Inserts that leave a row alone which is there already; SQLite and PostgreSQL write them alike."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Table, bindparam, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite

Key = tuple[Any, ...]


def insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT of the connection's database, which knows ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def insert_new(
    connection: Connection, table: Table, key: tuple[str, ...], rows: Mapping[Key, dict[str, Any]]
) -> dict[Key, int]:
    """Insert the rows whose key is new; of the others take over only an earlier receipt.

    The rows are sorted by key, so that two transactions lock theirs in the same order.

    Args:
        connection: A transaction that writes.
        table: It has the columns `id`, `received` and `sequence`.
        key: The columns of a unique constraint.
        rows: By their key.

    Returns:
        The ids of the new rows, by key.
    """
    if not rows:
        return {}
    columns = [table.c[name] for name in key]
    statement = (
        insert(connection, table).on_conflict_do_nothing(index_elements=list(key)).returning(table.c.id, *columns)
    )
    result = connection.execute(statement, [rows[key] for key in sorted(rows)])
    new = {tuple(row[1:]): row[0] for row in result}
    known = [rows[key] for key in sorted(rows) if key not in new]
    if known:
        earlier = tuple_(table.c.received, table.c.sequence) > tuple_(bindparam("b_received"), bindparam("b_sequence"))
        same = [table.c[name] == bindparam(f"b_{name}") for name in key]
        connection.execute(
            update(table)
            .where(*same, earlier)
            .values(received=bindparam("b_received"), sequence=bindparam("b_sequence")),
            [{f"b_{name}": row[name] for name in (*key, "received", "sequence")} for row in known],
        )
    return new
