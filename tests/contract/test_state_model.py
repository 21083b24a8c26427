"""The live state in SQLite answers as the model does, whatever happens."""

from __future__ import annotations

from tests.support.sqlite_subject import sqlite_subject
from tests.support.state_machine import compare


def test_sqlite_answers_as_the_model() -> None:
    compare(sqlite_subject, tries=120, steps=50)
