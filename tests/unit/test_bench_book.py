"""The book of the benchmark: what the service finds in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from bench.book import LIMITED, OVER_QUOTA, QUOTA, write_book
from bench.mail import CHECKED, GREYLISTED, user_domain, user_name
from chapps_tw.database.lookups import Sender, flags_of, grants
from chapps_tw.database.plans import domain_plans, plan, user_plans
from chapps_tw.interfaces.book import DomainFlags, Limit, Plan
from tests.support.empty_book import copy_empty_book

USERS = range(25_000, 50_001)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path = Path(tmp_path_factory.mktemp("book"), "book.sqlite3")
    copy_empty_book(path)
    write_book(f"sqlite:///{path}", USERS)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def plan_of(book: Connection, user: int) -> Plan | None:
    [of_user] = user_plans(book, [user_name(user)], 0.0).values()
    quota = of_user.quota
    return None if quota is None else plan(book, quota)


def pool_of(book: Connection, user: int) -> Plan | None:
    [of_domain] = domain_plans(book, [user_domain(user)], 0.0).values()
    pool = of_domain.pool
    return None if pool is None else plan(book, pool)


@pytest.mark.parametrize("user", [USERS[0], 34_999, 35_000, USERS[-1], LIMITED[0], LIMITED[-1], OVER_QUOTA])
def test_every_user_may_send_as_a_domain(book: Connection, user: int) -> None:
    [grant] = grants(book, [Sender(user_name(user), user_domain(user), "")]).values()
    assert grant.domain


@pytest.mark.parametrize("user", [USERS[0], 34_999, 35_000, USERS[-1]])
def test_a_user_has_one_limit(book: Connection, user: int) -> None:
    assert plan_of(book, user) == Plan(1, "day", QUOTA, ())
    assert pool_of(book, user) is None


@pytest.mark.parametrize("user", LIMITED)
def test_a_limited_user_has_an_hour_and_a_day_and_a_pool(book: Connection, user: int) -> None:
    hour = Limit("hour", "recipients", QUOTA, 3600, "refuse")
    assert plan_of(book, user) == Plan(3, "hour and day", QUOTA, (hour,))
    assert pool_of(book, user) == Plan(4, "pool", QUOTA, ())


def test_a_user_over_the_quota_may_send_one_message(book: Connection) -> None:
    assert plan_of(book, OVER_QUOTA) == Plan(2, "one", 1, ())
    assert pool_of(book, OVER_QUOTA) is None


def test_domains_that_receive_have_their_flags(book: Connection) -> None:
    assert flags_of(book, GREYLISTED) == DomainFlags(True, True, False)
    assert flags_of(book, CHECKED) == DomainFlags(True, False, True)
