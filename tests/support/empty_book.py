"""Copies of an empty policy book in SQLite, which the service's own code creates once per run.

Creating one takes longer than most tests do. Tests of creating and upgrading a database do not use copies.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.database.engine import make_engine


@cache
def _content() -> bytes:
    with TemporaryDirectory(prefix="empty-book-") as directory:
        path = Path(directory, "book.sqlite3")
        engine = make_engine(PolicyConfigAdapter(db_name=str(path)), "", directory)
        schema.prepare(engine)
        engine.dispose()
        return path.read_bytes()


def copy_empty_book(path: Path) -> None:
    """Create an SQLite file with all tables and no rows, readable by its owner only."""
    path.touch(0o600)
    path.write_bytes(_content())
