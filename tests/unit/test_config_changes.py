"""What of a new configuration is in force at once, and what is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chapps_tw.config.changes import differences, digest_of, in_force, late_listeners
from chapps_tw.config.limits import RateLimit, parse_window
from chapps_tw.config.load import options
from chapps_tw.config.settings import (
    API,
    SECRETS,
    SECTIONS,
    Chapps,
    GreylistingPolicy,
    Listener,
    OutboundQuotaPolicy,
    PolicyConfigAdapter,
    Redis,
    Settings,
)
from chapps_tw.config.values import Secret

FLOOD = RateLimit("flood", per="client", amount=5, window=parse_window("1h"))
OUT = Listener("out", "tcp:1", ("OutboundQuotaPolicy",))
OLD = Listener("old", "tcp:3", ("OutboundQuotaPolicy",))


def test_equal_settings_do_not_differ() -> None:
    assert differences(Settings(), Settings()) == []


def test_options_and_sections_that_differ_are_named() -> None:
    before = Settings(limits=(FLOOD,), own_listeners=(OUT,))
    after = Settings(
        oqp=OutboundQuotaPolicy(warn_at=50),
        limits=(replace(FLOOD, amount=6), replace(FLOOD, name="other")),
        grl=GreylistingPolicy(tally_ttl=5.0),
    )
    assert differences(before, after) == [
        "[OutboundQuotaPolicy] warn_at",
        "[GreylistingPolicy] tally_ttl",
        "[Limit flood] amount",
        "[Listener out]",
        "[Limit other]",
    ]


@pytest.mark.parametrize("field", SECRETS)
def test_another_password_in_the_same_file_is_named_by_the_option_of_the_file(field: str) -> None:
    section, name = SECRETS[field]
    kind = SECTIONS[section]
    parts: dict[str, Any] = {section: kind(**{f"{name}_file": "/secret"})}
    before, after = (Settings(**parts | {field: Secret(each)}) for each in ("one", "two"))
    assert differences(before, after) == [f"[{kind.section}] {name}_file"]


def test_options_that_take_effect_after_a_restart_keep_their_values() -> None:
    running = Settings(adapter=PolicyConfigAdapter(db_name="a"), redis=Redis(key_prefix="a"))
    loaded = Settings(
        adapter=PolicyConfigAdapter(db_name="b", audit_days=7),
        redis=Redis(key_prefix="b"),
        chapps=Chapps(data_dir="/b", user_key="ccert_subject"),
        db_password=Secret("b"),
        relay_password=Secret("b"),
    )
    found = in_force(running, loaded)
    assert (found.adapter.db_name, found.adapter.audit_days, found.redis.key_prefix) == ("a", 7, "a")
    assert (found.chapps.data_dir, found.chapps.user_key) == (Chapps().data_dir, "ccert_subject")
    assert (found.db_password, found.relay_password) == (Secret(""), Secret("b"))
    assert differences(found, loaded) == [
        "[CHAPPS] data_dir",
        "[PolicyConfigAdapter] db_name",
        "[Redis] key_prefix",
    ]


def test_listeners_stay_with_their_endpoints_and_get_other_policies() -> None:
    running = Settings(own_listeners=(OUT, OLD))
    policies = ("SenderDomainAuthPolicy",)
    loaded = Settings(own_listeners=(replace(OUT, listen="tcp:2", policies=policies), replace(OUT, name="new")))
    found = in_force(running, loaded)
    assert found.own_listeners == (replace(OUT, policies=policies), OLD)
    assert differences(found, loaded) == ["[Listener out] listen", "[Listener old]", "[Listener new]"]


def test_the_default_listeners_that_begin_or_end_after_a_restart_are_named() -> None:
    names = [each.name for each in Settings().listeners]
    assert late_listeners(names, Settings()) == []
    assert late_listeners(names, Settings(limits=(FLOOD,))) == ["listener limits"]
    assert late_listeners([*names, "limits"], Settings()) == ["listener limits"]


def test_the_digest_is_that_of_the_options_but_not_of_secrets() -> None:
    digest = digest_of(Settings())
    assert digest == digest_of(Settings(path="/elsewhere", api=API(), relay_password=Secret("x")))
    assert digest == digest_of(Settings(chapps=Chapps(password=Secret("x"))))
    assert digest != digest_of(Settings(limits=(FLOOD,)))
    assert digest != digest_of(Settings(oqp=OutboundQuotaPolicy(warn_at=50)))


def test_what_names_a_place_takes_effect_after_a_restart() -> None:
    """Whoever adds such an option is reminded: ports and the stores are opened at the start."""
    for kind in (*SECTIONS.values(), Listener):
        late = {name for name, metadata in options(kind) if metadata["restart"]}
        named = {name for name, _ in options(kind) if name in ("listen", "listen_address", "listen_port")}
        assert named <= late
    assert {name for name, _ in options(Redis)} == {name for name, metadata in options(Redis) if metadata["restart"]}
