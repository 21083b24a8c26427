"""Copying all tables of a book to another kind of database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, insert, select

from chapps_tw.database import models, schema
from chapps_tw.database.moving import copy_tables
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, engine_for

ROWS: list[tuple[Any, dict[str, Any]]] = [
    (models.quotas, {"id": 3, "name": "small", "quota": 5}),
    (models.domains, {"id": 11, "name": "example.com", "greylist": True, "check_spf": False, "each_quota_id": 3}),
    (models.emails, {"id": 21, "name": "sales@example.org"}),
    (models.users, {"id": 31, "name": "ann"}),
    (models.domain_user, {"user_id": 31, "domain_id": 11}),
    (models.email_user, {"user_id": 31, "email_id": 21}),
    (models.quota_user, {"user_id": 31, "quota_id": 3}),
    (
        models.limits,
        {
            "id": 1, "quota_id": 3, "name": "hour", "unit": "messages", "amount": 2**40, "window_seconds": 3600,
            "action": "defer",
        },
    ),
    (
        models.overrides,
        {
            "id": 5, "user_id": 31, "kind": "extra", "value": 500, "limit_name": "", "begin_at": 1.5, "until_at": 2e9,
            "reason": "grün", "action": "", "author": "desk", "created_at": 1.5,
        },
    ),
    (
        models.exemptions,
        {
            "id": 7, "kind": "client", "value": "192.0.2.0/24", "scope": "spf", "until_at": 2e9, "reason": "",
            "author": "desk", "created_at": 1.25,
        },
    ),
]  # fmt: skip


def rows_of(engine: Engine) -> dict[str, list[Any]]:
    with engine.connect() as connection:
        return {
            table.name: sorted(map(tuple, connection.execute(select(table)).all()), key=repr)
            for table in models.metadata.sorted_tables
        }


class MovingTests(BookCase):
    """Behaviour on one kind of target."""

    __test__ = False

    def setUp(self) -> None:
        super().setUp()
        self.old = engine_for(OnSqlite.new_database())
        self.addCleanup(self.old.dispose)
        schema.upgrade(self.old)
        with self.old.begin() as connection:
            for table, row in ROWS:
                connection.execute(insert(table), row)
            records = [
                {
                    "id": number,
                    "at": float(number),
                    "author": "desk",
                    "action": "create",
                    "kind": "users",
                    "name": "ann",
                }
                for number in range(1, 2502)
            ]
            connection.execute(insert(models.audit), records)

    async def test_all_rows_are_copied_as_they_are_and_new_entries_get_new_ids(self) -> None:
        copied = copy_tables(self.old, self.engine)
        self.assertEqual(rows_of(self.engine), rows_of(self.old))
        self.assertEqual((copied["users"], copied["audit"], copied["overrides"]), (1, 2501, 1))
        self.assertEqual(await self.user("bob"), 32)
        self.assertGreater(await self.quota("large", 10), 3)

    async def test_a_book_with_entries_is_left_as_it_is(self) -> None:
        await self.user("bob")
        before = rows_of(self.engine)
        with self.assertRaisesRegex(schema.SchemaError, "Its table (audit|users) has entries"):
            copy_tables(self.old, self.engine)
        self.assertEqual(rows_of(self.engine), before)


class SqliteTests(OnSqlite, MovingTests):
    __test__ = True


class PostgreSQLTests(OnPostgreSQL, MovingTests):
    __test__ = True


class MariaDBTests(OnMariaDB, MovingTests):
    __test__ = True
