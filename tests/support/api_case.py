"""Tests that ask the HTTP API of running services, and what those share."""

from __future__ import annotations

import unittest
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.book_case import shared
from tests.support.rest_client import ask
from tests.support.servers.common import HANGS, wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import Options, Service
from tests.support.servers.sql import MariaDB, PostgreSQL

_DRIVERS = {"postgresql": "postgresql+psycopg", "mariadb": "mariadb+pymysql"}


class Database:
    """A new, empty database on the server that all tests of this run share.

    :ivar options: for a service that uses it.
    :ivar url: for tests that write into it behind the service's back.
    """

    def __init__(self, kind: type[PostgreSQL] | type[MariaDB]) -> None:
        server = shared(PostgreSQL) if kind is PostgreSQL else shared(MariaDB)
        name = server.new_database()
        where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": name, "db_pass": "secret"}
        self.options: Options = {"PolicyConfigAdapter": {"adapter": server.kind, **where}}
        self.url = f"{_DRIVERS[server.kind]}://chapps:secret@127.0.0.1:{server.port}/{name}"


class APITestCase(unittest.TestCase):
    """What is started here runs until the last test of the class is over."""

    @classmethod
    def run_redis(cls, **options: Any) -> RedisProcess:
        folder = cls.enterClassContext(TemporaryDirectory(prefix="redis-"))
        redis = RedisProcess(Path(folder), **options)
        cls.addClassCleanup(redis.stop)
        return redis.start()

    @classmethod
    def run_service(cls, *options: Options, set_up: bool = False) -> Service:
        """A service that is ready.

        :param options: of several, the sections must be different ones.
        :param set_up: make the tables of a database server first.
        """
        service = Service({section: values for each in options for section, values in each.items()})
        cls.addClassCleanup(service.remove)
        if set_up:
            service.set_up_database()
        return service.start().wait_ready()

    @classmethod
    def run_nodes(cls, redis: RedisProcess, options: Options | None = None) -> tuple[Service, Service]:
        """Two services with one Redis and one PostgreSQL database."""
        both = (Database(PostgreSQL).options, {"Redis": {"server": "127.0.0.1", "port": redis.port}}, options or {})
        return cls.run_service(*both, set_up=True), cls.run_service(*both)

    def expect(self, status: int, service: Service, method: str, path: str, body: Any = None) -> Any:
        """Ask, and look at the status; returns the envelope, or the error."""
        answer = ask(service.ports["api"], method, path, body, token=service.token)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return answer.json

    def create(self, service: Service, kind: str, **fields: Any) -> int:
        """Create an object of the book; returns its id."""
        return int(self.expect(201, service, "POST", f"/{kind}/", fields)["response"]["id"])

    def wait_for(self, what: str, true: Callable[[], object], seconds: float = HANGS) -> None:
        """Fail unless something comes true in time."""
        try:
            wait_until(true, what, seconds)
        except TimeoutError as error:
            self.fail(str(error))
