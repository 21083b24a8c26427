"""PostgreSQL only: sequences that are behind, and databases with the encoding SQL_ASCII."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import text
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.database import schema
from chapps_tw.interfaces.book import BookConflict, BookUnavailable, Create
from tests.support.api_case import APITestCase, Database
from tests.support.book_case import BookCase, OnPostgreSQL, engine_for, shared
from tests.support.paths import ROOT
from tests.support.servers.service import Service
from tests.support.servers.sql import PostgreSQL


class SequenceTests(OnPostgreSQL, BookCase):
    async def test_a_sequence_that_yields_used_ids_is_not_reported_as_a_name_conflict(self) -> None:
        with self.engine.begin() as connection:
            for kind in ("users", "domains", "emails"):
                connection.execute(text(f"SELECT setval(pg_get_serial_sequence('{kind}', 'id'), 1, false)"))
                connection.execute(text(f"INSERT INTO {kind} (id, name) VALUES (1, 'copied.in@example.com')"))
        for kind in ("users", "domains", "emails"):
            with self.assertRaises(BookUnavailable) as caught:
                await self.book.change(Create(kind, {"name": "new.example.com"}))
            sentence = str(caught.exception)
            self.assertIn(f"The id sequence of {kind} is behind its rows", sentence)
            with self.engine.begin() as connection:
                connection.execute(text(sentence[sentence.index("SELECT setval") :]))
            created = await self.create(kind, {"name": "new.example.com"})
            self.assertEqual(created.id, 2)
            with self.assertRaisesRegex(BookConflict, "named new.example.com exists already"):
                await self.book.change(Create(kind, {"name": "new.example.com"}))
        self.assertEqual(self.book.problem, "")


def database_without_encoding(server: PostgreSQL) -> str:
    name = f"ascii{os.getpid()}"
    server.execute(f"DROP DATABASE IF EXISTS {name}")
    server.execute(f"CREATE DATABASE {name} OWNER chapps ENCODING 'SQL_ASCII' TEMPLATE template0")
    return name


class EncodingTests(SynchronousTestCase):
    def test_a_database_without_an_encoding_is_rejected(self) -> None:
        server = shared(PostgreSQL)
        assert isinstance(server, PostgreSQL)
        engine = engine_for(server.adapter(database_without_encoding(server)))
        self.addCleanup(engine.dispose)
        for use in (schema.upgrade, schema.check, schema.prepare):
            with self.assertRaisesRegex(schema.SchemaForeign, "encoding SQL_ASCII.*ENCODING 'UTF8'"):
                use(engine)

    def test_any_other_encoding_is_accepted(self) -> None:
        server = shared(PostgreSQL)
        engine = engine_for(replace(server.adapter(server.new_database())))
        self.addCleanup(engine.dispose)
        schema.upgrade(engine)
        schema.check(engine)


class RefusedAtStartTests(APITestCase):
    def test_the_service_and_db_setup_say_so(self) -> None:
        server = shared(PostgreSQL)
        assert isinstance(server, PostgreSQL)
        options = {**Database(PostgreSQL).options["PolicyConfigAdapter"], "db_name": database_without_encoding(server)}
        directory = Path(self.enterContext(TemporaryDirectory()))
        service = Service({"PolicyConfigAdapter": options}, directory)
        self.addCleanup(service.remove)
        command = [
            sys.executable,
            "-m",
            "chapps_tw.application.admin",
            "--config",
            str(service.config),
            "admin",
            "db-setup",
        ]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        self.assertEqual(ran.returncode, 1)
        self.assertRegex(ran.stderr, r"\[PolicyConfigAdapter\] db_name: .*encoding SQL_ASCII")
        with self.assertRaisesRegex(RuntimeError, r"chapps cannot start: .*db_name: .*encoding SQL_ASCII"):
            service.start()
