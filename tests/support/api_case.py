"""Base class for tests of the HTTP API of running services."""

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
    """A new, empty database on the shared server of this run.

    :ivar options: for a service that uses it.
    :ivar url: for tests that write to it directly.
    """

    def __init__(self, kind: type[PostgreSQL] | type[MariaDB]) -> None:
        server = shared(PostgreSQL) if kind is PostgreSQL else shared(MariaDB)
        name = server.new_database()
        where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": name, "db_pass": "secret"}
        self.options: Options = {"PolicyConfigAdapter": {"adapter": server.kind, **where}}
        self.url = f"{_DRIVERS[server.kind]}://chapps:secret@127.0.0.1:{server.port}/{name}"


class APITestCase(unittest.TestCase):
    """Servers and services that are started here run until the last test of the class has finished."""

    @classmethod
    def run_redis(cls, **options: Any) -> RedisProcess:
        folder = cls.enterClassContext(TemporaryDirectory(prefix="redis-"))
        redis = RedisProcess(Path(folder), **options)
        cls.addClassCleanup(redis.stop)
        return redis.start()

    @classmethod
    def run_service(cls, *options: Options, set_up: bool = False) -> Service:
        """Return a service that is ready.

        :param options: several must have different sections.
        :param set_up: create the tables on a database server first.
        """
        service = Service({section: values for each in options for section, values in each.items()})
        cls.addClassCleanup(service.remove)
        if set_up:
            service.set_up_database()
        return service.start().wait_ready()

    @classmethod
    def run_nodes(cls, redis: RedisProcess, options: Options | None = None) -> tuple[Service, Service]:
        """Return two services that share Redis and a PostgreSQL database."""
        both = (Database(PostgreSQL).options, {"Redis": {"server": "127.0.0.1", "port": redis.port}}, options or {})
        return cls.run_service(*both, set_up=True), cls.run_service(*both)

    def expect(self, status: int, service: Service, method: str, path: str, body: Any = None) -> Any:
        """Send a request and check the status; return the envelope, or the error."""
        answer = ask(service.ports["api"], method, path, body, token=service.token)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return answer.json

    def create(self, service: Service, kind: str, **fields: Any) -> int:
        """Create an entry of the book; return its id."""
        return int(self.expect(201, service, "POST", f"/{kind}/", fields)["response"]["id"])

    def wait_for(self, what: str, true: Callable[[], object], seconds: float = HANGS) -> None:
        """Fail unless a condition becomes true in time."""
        try:
            wait_until(true, what, seconds)
        except TimeoutError as error:
            self.fail(str(error))
