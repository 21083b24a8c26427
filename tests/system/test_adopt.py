"""Moving over from CHAPPS 0.5, from a MariaDB and a Redis that the published package has filled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any, Final

import pytest

from chapps_tw.config.load import load
from tests.support.api_case import Database
from tests.support.book_case import shared
from tests.support.chapps05 import Chapps05, chapps_cli
from tests.support.paths import ROOT
from tests.support.policy_client import PolicyClient, inbound, outbound
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import MariaDB, PostgreSQL

BOB, CAROL, NOBODY = "bob@example.com", "Carol@Example.COM", "nobody@example.com"
OUR = "r@our.example"
NO_FLAGS: Final = {"greylist": False, "check_spf": False}
ROWS: Final = {
    "quotas": {"five": 5, "ten": 10},
    "domains": {
        "example.com": NO_FLAGS,
        "our.example": {"greylist": True, "check_spf": False},
        "plain.example": NO_FLAGS,
    },
    "emails": ["Sales@example.org"],
    "users": {
        BOB: {"quota": "five", "domains": ["example.com"], "emails": ["Sales@example.org"]},
        CAROL: {"quota": "ten", "domains": ["example.com"], "emails": []},
        NOBODY: {"quota": None, "domains": ["example.com"], "emails": []},
    },
}
# Client, sender and recipient that were deferred an hour ago, and those that were not.
KNOWN: Final = [
    ("198.51.100.7", "s@example.net", OUR),
    ("198.51.100.7", "", OUR),
    ("2001:db8::25", "S@Example.NET", "R@our.example"),
]
UNKNOWN: Final = [("198.51.100.7", "other@example.net", OUR), ("192.0.2.99", "s@example.net", OUR)]
TRUSTED: Final = "203.0.113.9"
SENDERS: Final = [
    (BOB, "bob@example.com"),
    (BOB, "sales@example.org"),
    (BOB, "other@example.org"),
    (BOB, "x@plain.example"),
    (CAROL, "carol@example.com"),
    ("unknown@example.com", "unknown@example.com"),
]


def mail(user: str, sender: str = "x@example.com", **changes: str) -> dict[str, str]:
    return outbound(sasl_username=user, sender=sender, **changes)


def attempt(client: str, sender: str, recipient: str, **changes: str) -> dict[str, str]:
    return inbound(client_address=client, sender=sender, recipient=recipient, **changes)


def fill(old: Chapps05) -> None:
    """Have CHAPPS 0.5 count, defer and pass, an hour and half an hour ago."""
    old.fill(ROWS)
    with old.serving(behind=3600), old.client() as policy, old.client("greylisting") as greylisting:
        for user in (BOB, CAROL, CAROL, *[CAROL.lower()] * 3):
            assert policy.ask(mail(user)) == "DUNNO"
        assert policy.ask(mail(BOB, recipient="r1@example.net,r2@example.net")) == "DUNNO"
        assert policy.ask(mail(NOBODY)).startswith("REJECT")
        for each in (*KNOWN, (TRUSTED, "t@example.net", OUR)):
            assert greylisting.ask(attempt(*each)).startswith("DEFER_IF_PERMIT")
    with old.serving(behind=1800), old.client("greylisting") as greylisting:
        for _ in range(10):
            assert greylisting.ask(attempt(TRUSTED, "t@example.net", OUR)) == "DUNNO"


def redis_in(folder: Path) -> RedisProcess:
    return RedisProcess(folder, enable_debug_command="yes")


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chapps05]:
    """One that all tests begin with a copy of."""
    folder = tmp_path_factory.mktemp("chapps05")
    server = shared(MariaDB)
    assert isinstance(server, MariaDB)
    # Below pytest's directory, the path of its socket could be too long.
    with TemporaryDirectory(prefix="redis-") as directory:
        redis = redis_in(Path(directory)).start()
        try:
            chapps = Chapps05(folder, server, redis)
            fill(chapps)
            redis.command("SAVE")
            yield chapps
        finally:
            redis.stop()


@pytest.fixture
def old(filled: Chapps05, tmp_path: Path) -> Iterator[Chapps05]:
    """With a Redis of its own."""
    with TemporaryDirectory(prefix="redis-") as directory:
        redis = redis_in(Path(directory))
        shutil.copy(filled.redis.folder / "dump.rdb", redis.folder)
        redis.start()
        try:
            yield Chapps05(tmp_path, filled.server, redis, filled.database)
        finally:
            redis.stop()


@pytest.fixture
def old_alone(old: Chapps05, tmp_path: Path) -> Chapps05:
    """With a database of its own, too."""
    chapps = Chapps05(tmp_path, old.server, old.redis)
    chapps.fill(ROWS)
    return chapps


def in_place(old: Chapps05) -> Options:
    where = {"adapter": "mariadb", "db_host": "127.0.0.1", "db_port": old.server.port, "db_pass": "secret"}
    redis = {"server": "127.0.0.1", "port": old.redis.port}
    return {"PolicyConfigAdapter": {**where, "db_name": old.database}, "Redis": redis}


def to_files(old: Chapps05) -> Options:
    return {}


def to_postgresql(old: Chapps05) -> Options:
    return Database(PostgreSQL).options


@pytest.fixture
def services() -> Iterator[list[Service]]:
    found: list[Service] = []
    yield found
    for service in found:
        service.remove()


def report(old: Chapps05, new: Path, *arguments: str) -> Any:
    ran = chapps_cli("adopt", "--from", str(old.config), "--to", str(new), "--json", *arguments)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def tables(old: Chapps05) -> list[object]:
    names = sorted(str(name) for (name,) in old.server.execute("SHOW TABLES", old.database))
    return [
        old.server.execute(f"{statement} TABLE {name}", old.database)
        for name in names
        for statement in ("CHECKSUM", "SHOW CREATE")
    ]


def keys(old: Chapps05) -> tuple[Any, Any]:
    return old.redis.command("DEBUG", "DIGEST"), old.redis.command("DBSIZE")


def action(policy: PolicyClient, request: dict[str, str]) -> str:
    return policy.ask(request).split()[0]


@pytest.mark.parametrize("target", [to_files, to_postgresql, in_place])
def test_the_same_questions_get_the_same_answers(
    old_alone: Chapps05, services: list[Service], target: Callable[[Chapps05], Options]
) -> None:
    old = old_alone
    service = Service({**PATIENT, **target(old)}, first_start=True)
    services.append(service)
    carried = report(old, service.config)["state"]
    assert carried["found"] == {
        "counts": 4,
        "tuples": 4,
        "tallies": 1,
        "cached": carried["found"]["cached"],
        "foreign": 0,
    }
    assert (carried["transmissions"], carried["unreadable"]) == (9, [])
    assert carried["added"] == {"counts": 8, "tuples": 4, "tallies": 10}
    again = report(old, service.config)["state"]
    assert again["added"] == {"counts": 0, "tuples": 0, "tallies": 0}

    service.start().wait_ready()
    with old.serving(), old.client() as his, old.client("greylisting") as his_greylisting:
        left = old.left(BOB, CAROL, CAROL.lower())
        assert left == {BOB: 2, CAROL: 8, CAROL.lower(): 7}
        assert service.remaining(BOB) == left[BOB]
        # One user in two spellings, which CHAPPS 0.5 counts apart.
        assert service.remaining(CAROL) == 10 - 2 - 3
        with service.client() as ours, service.client("greylisting") as greylisting:
            for each in KNOWN:
                assert (action(his_greylisting, attempt(*each)), action(greylisting, attempt(*each))) == ("DUNNO",) * 2
            trusted = attempt(TRUSTED, "new@example.net", OUR)
            assert (action(his_greylisting, trusted), action(greylisting, trusted)) == ("DUNNO", "DUNNO")
            for each in UNKNOWN:
                request = attempt(*each)
                assert action(his_greylisting, request) == action(greylisting, request) == "DEFER_IF_PERMIT"
            unlisted = attempt("192.0.2.99", "s@example.net", "r@plain.example")
            assert (action(his_greylisting, unlisted), action(greylisting, unlisted)) == ("DUNNO", "DUNNO")
            # Both count on, until the quota of bob is used up.
            answers = [(action(his, request), action(ours, request)) for request in [mail(*each) for each in SENDERS]]
            assert answers == [("DUNNO", "DUNNO")] * 2 + [("REJECT", "REJECT")] * 2 + [("DUNNO", "DUNNO")] + [
                ("REJECT", "REJECT")
            ]
            assert service.remaining(BOB) == old.left(BOB)[BOB] == 0
            request = mail(BOB)
            assert (action(his, request), action(ours, request)) == ("REJECT", "REJECT")
            # What CHAPPS 0.5 counts after that comes with the next run, while the service is in use.
            assert service.remaining(CAROL) == 4
            assert action(his, mail(CAROL)) == "DUNNO"
            assert report(old, service.config, "--only", "state")["state"]["added"]["tallies"] == 4
            assert service.remaining(CAROL) == 2
            assert action(ours, mail(CAROL)) == "DUNNO"
            assert service.remaining(CAROL) == 1


def test_a_dry_run_tells_all_and_changes_nothing(old: Chapps05, tmp_path: Path) -> None:
    new = tmp_path / "new" / "chapps.ini"
    old.redis.command("SET", "oqp:broken:attempts", "x")
    old.redis.command("SET", "grl:192.0.2.1:a:b:c", "1")
    old.redis.command("SET", "grl:192.0.2.1:a@b:c@d", "soon")
    before = tables(old), keys(old), old.config.read_bytes()
    found = report(old, new, "--dry-run")
    assert (tables(old), keys(old), old.config.read_bytes()) == before
    assert not new.parent.exists()

    assert found["configuration"]["written"] is False
    assert len(found["configuration"]["without_effect"]) == 1
    assert "[SPFEnforcementPolicy] whitelist has no effect" in found["configuration"]["without_effect"][0]
    assert "published default" in found["configuration"]["to_decide"][0]
    database = found["database"]
    assert {kind: database[kind] for kind in ("users", "domains", "emails", "quotas", "links")} == {
        "users": 3, "domains": 3, "emails": 1, "quotas": 2, "links": 6
    }  # fmt: skip
    assert database["domains_with_flags"] == [{"name": "our.example", "greylist": True, "check_spf": False}]
    assert database["users_without_quota"] == [NOBODY]
    assert database["names"] == ["Names of users normalized: 1.", "Names of emails normalized: 1."]
    state = found["state"]
    assert (state["found"]["counts"], state["found"]["tuples"], state["found"]["tallies"]) == (4, 4, 1)
    assert state["transmissions"] == 9
    assert state["respelled"] == [CAROL]
    assert {each["key"]: each["why"] for each in state["unreadable"]} == {
        "oqp:broken:attempts": "is not a sorted set, or has expired meanwhile",
        "grl:192.0.2.1:a:b:c": "is not CLIENT:SENDER:RECIPIENT: an address in it contains a colon",
        "grl:192.0.2.1:a@b:c@d": "is not a time, or has expired meanwhile",
    }

    text = chapps_cli("adopt", "--from", str(old.config), "--to", str(new), "--dry-run").stdout
    assert text.startswith("Nothing was changed. Without --dry-run, this would be done:\nConfiguration: ")
    assert "  Counts: 4 users, 9 transmissions\n" in text
    assert "  Keys that cannot be read: 3\n" in text


def test_the_configuration_is_written_once(old: Chapps05, tmp_path: Path) -> None:
    new = tmp_path / "new.ini"
    found = report(old, new, "--only", "configuration")["configuration"]
    assert (found["written"], found["kept"]) == (True, False)
    assert new.stat().st_mode & 0o777 == 0o600
    settings = load(str(new))
    assert (settings.adapter.adapter, settings.adapter.db_name, str(settings.db_password)) == (
        "mariadb", old.database, load(str(old.config)).db_password,
    )  # fmt: skip
    assert settings.redis.port == old.redis.port
    assert settings.oqp.listen_port == old.ports["outbound"]
    text = new.read_text().replace("interval = 86400", "interval = 43200")
    new.write_text(text)
    found = report(old, new, "--only", "configuration")["configuration"]
    assert (found["written"], found["kept"]) == (False, True)
    assert found["differences"] == ["[OutboundQuotaPolicy] interval = 43200.0, and was 86400.0"]
    assert new.read_text() == text


def test_a_copy_is_completed_by_a_second_run(old_alone: Chapps05, services: list[Service]) -> None:
    old = old_alone
    service = Service(first_start=True)
    services.append(service)
    first = report(old, service.config, "--only", "database")["database"]
    assert first["added"] == {"quotas": 2, "domains": 3, "emails": 1, "users": 3, "links": 6}
    service.start().wait_ready()
    assert service.http("/users/by-name/dave")[0] == 404
    old.server.execute("INSERT INTO users (id, name) VALUES (70, 'Dave')", old.database)
    old.server.execute("INSERT INTO quota_user (user_id, quota_id) SELECT 70, id FROM quotas LIMIT 1", old.database)
    second = report(old, service.config, "--only", "database")["database"]
    assert second["added"] == {"quotas": 0, "domains": 0, "emails": 0, "users": 1, "links": 1}
    assert second["known"] == {"quotas": 2, "domains": 3, "emails": 1, "users": 3}
    status, dave = service.http("/users/by-name/dave")
    assert (status, dave["response"]["id"]) == (200, 70)


def test_a_redis_that_does_not_answer_is_reported(old: Chapps05, services: list[Service]) -> None:
    service = Service()
    services.append(service)
    old.redis.stop()
    ran = chapps_cli("adopt", "--from", str(old.config), "--to", str(service.config), "--only", "state")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"127.0.0.1:{old.redis.port}" in ran.stderr
    assert "a repetition completes it" in ran.stderr


def test_the_page_says_what_happens(old_alone: Chapps05, tmp_path: Path) -> None:
    """Each command of the page is run in order, with the paths and the servers of this test."""
    old, new = old_alone, tmp_path / "chapps.ini"
    ours = {
        "/etc/chapps/chapps-0.5.ini": str(old.config),
        "/etc/chapps/chapps.ini": str(new),
        "localhost:3306/chapps": f"127.0.0.1:{old.server.port}/{old.database}",
        "localhost:6379": f"127.0.0.1:{old.redis.port}",
    }
    text = (ROOT / "docs" / "how-to" / "move-from-chapps.md").read_text()
    ran = []
    for block in text.split("```")[1::2]:
        lines = dedent(block).strip().splitlines()
        for name, here in ours.items():
            lines = [line.replace(name, here) for line in lines]
        expected = "\n".join(line for line in lines if not line.startswith("# "))
        for command in [line.removeprefix("# chapps-cli ") for line in lines if line.startswith("# chapps-cli ")]:
            done = chapps_cli(*command.split(), config=new)
            assert done.returncode == 0, done.stderr
            ran.append(command.split()[0])
            if expected:
                assert done.stdout.rstrip() == expected
    assert ran == ["adopt", "adopt", "check-config", "adopt", "adopt"]
