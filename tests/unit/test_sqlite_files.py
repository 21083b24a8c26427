"""SQLite files: private, and safe to open concurrently."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chapps_tw.security import sqlite_files

OTHER_PROCESS = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
try:
    db.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
"""


def test_a_new_file_has_mode_0600(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.sqlite3"
    sqlite_files.create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_an_existing_file_keeps_its_locks(tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite3"
    sqlite_files.create(path)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("CREATE TABLE kept (it)")
    db.execute("BEGIN IMMEDIATE")
    sqlite_files.create(path)
    command = [sys.executable, "-c", OTHER_PROCESS, str(path)]
    other = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    db.close()
    assert other.stdout == "database is locked\n"


def test_a_path_that_is_not_a_file_is_refused_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        sqlite_files.create(tmp_path / "file" / "below.sqlite3")


def test_the_journal_mode_can_be_set_concurrently(tmp_path: Path) -> None:
    def open_one(path: Path) -> str:
        db = sqlite3.connect(path, timeout=0, isolation_level=None)
        sqlite_files.write_ahead(db)
        mode = str(db.execute("PRAGMA journal_mode").fetchone()[0])
        db.close()
        return mode

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            path = tmp_path / f"{number}.sqlite3"
            sqlite_files.create(path)
            assert set(pool.map(open_one, [path] * 8)) == {"wal"}
