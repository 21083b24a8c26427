"""Copying all tables of a book to another database."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Engine, Table, func, insert, select, text

from chapps_tw.database import schema
from chapps_tw.database.models import metadata

# Rows that are read and inserted at once.
_PAGE: Final = 1000


def copy_tables(source: Engine, target: Engine) -> dict[str, int]:
    """Copy every row to a database with empty tables, in one transaction. Ids stay the same.

    :returns: rows by table.
    :raises SchemaError: if one of them has not the tables of this version, or the target has entries.
    :raises sqlalchemy.exc.SQLAlchemyError: if a database cannot be used.
    """
    schema.check(source)
    schema.check(target)
    with source.connect() as old, target.begin() as new:
        for table in metadata.sorted_tables:
            if new.execute(select(table).limit(1)).first() is not None:
                raise schema.SchemaError(f"Its table {table.name} has entries. Tables are copied to empty ones only.")
        return {table.name: _copy(old, new, table) for table in metadata.sorted_tables}


def _copy(old: Connection, new: Connection, table: Table) -> int:
    columns = [column for column in table.c if column.computed is None]
    rows = 0
    for page in old.execute(select(*columns).execution_options(yield_per=_PAGE)).mappings().partitions():
        new.execute(insert(table), [dict(row) for row in page])
        rows += len(page)
    continue_ids(new, table)
    return rows


def continue_ids(connection: Connection, table: Table) -> None:
    """Have PostgreSQL choose ids after those that were inserted. Other databases do so anyway."""
    if connection.dialect.name == "postgresql" and table.autoincrement_column is not None:
        highest = select(func.max(table.c.id)).scalar_subquery()
        sequence = func.pg_get_serial_sequence(text(f"'{table.name}'"), text("'id'"))
        connection.execute(select(func.setval(sequence, highest)))
