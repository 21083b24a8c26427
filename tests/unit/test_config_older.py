"""The configuration of CHAPPS 0.5."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapps_tw.config.load import load
from chapps_tw.config.older import differences, load_older
from chapps_tw.config.settings import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "chapps.ini"
    path.touch(0o600)
    return path


def test_what_the_file_does_not_say_is_as_in_chapps(file: Path) -> None:
    older = load_older(str(file))
    settings = older.settings
    assert (settings.adapter.adapter, settings.adapter.db_port, settings.db_password) == ("mariadb", 3306, "chapps")
    assert (settings.redis.server, settings.redis.port, settings.uses_redis) == ("localhost", 6379, True)
    assert older.assumed == [
        "[PolicyConfigAdapter] adapter = mariadb",
        "[PolicyConfigAdapter] db_port = 3306",
        "[PolicyConfigAdapter] db_pass = chapps",
        "[Redis] server = localhost",
    ]


def test_what_the_file_says_is_used(file: Path) -> None:
    file.write_text(
        "[PolicyConfigAdapter]\nadapter = mysql\ndb_port = 3307\ndb_pass = x\n"
        "[Redis]\nsentinel_servers = a:26379 b:26379\nsentinel_dataset = m\n"
    )
    older = load_older(str(file))
    assert (older.settings.adapter.adapter, older.settings.db_password, older.assumed) == ("mysql", "x", [])
    assert older.settings.redis.server == ""


def test_options_without_effect_are_told_with_the_reason(file: Path) -> None:
    file.write_text("[CHAPPS]\ndocpath = /x\nfoo = 1\n[Foo]\nbar = 2\n[SPFEnforcementPolicy]\nwhitelist = a\n")
    meaningless = load_older(str(file)).meaningless
    assert len(meaningless) == 4
    told = "\n".join(meaningless)
    assert "[CHAPPS] foo: unknown option" in told
    assert "unknown section [Foo]" in told
    assert "[CHAPPS] docpath has no effect: the program knows it" in told
    assert "[SPFEnforcementPolicy] whitelist has no effect: CHAPPS 0.5 did not use it" in told
    with pytest.raises(ConfigError):
        load(str(file))


def test_the_environment_has_no_effect(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPPS_REDIS_PORT", "1")
    assert load_older(str(file)).settings.redis.port == 6379


def test_differences_hide_secrets(file: Path) -> None:
    file.write_text("[PolicyConfigAdapter]\ndb_pass = before\n[OutboundQuotaPolicy]\nmargin = 0\n")
    first = load(str(file))
    file.write_text("[PolicyConfigAdapter]\ndb_pass = after\n[OutboundQuotaPolicy]\nmargin = 5\n")
    assert differences(first, load(str(file))) == [
        "[PolicyConfigAdapter] db_pass differs",
        "[OutboundQuotaPolicy] margin = 5, and was 0",
    ]
