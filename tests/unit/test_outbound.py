"""The user of an outbound request."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import pytest

from chapps_tw.config.settings import Chapps, ConfigError, Settings
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR, decode_xtext


def settings(user_key: str = "sasl_username", require_user_key: bool = True) -> Settings:
    chapps = dataclasses.replace(Chapps(), user_key=user_key, require_user_key=require_user_key)
    return Settings(chapps=chapps)


LENIENT = settings(require_user_key=False)
FULL = {
    "sasl_username": "sasl",
    "ccert_subject": "cert",
    "sender": "a@b",
    "client_address": "192.0.2.1",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in FULL.items() if name not in names}


def test_the_default_user_is_the_sasl_username() -> None:
    assert OutboundPPR(FULL).user == "sasl"
    assert OutboundPPR(["sasl_username=x", "sender=y@z"]).user == "x"


def test_only_the_user_key_counts_when_it_is_required() -> None:
    with pytest.raises(AuthenticationFailureException):
        _ = OutboundPPR(without("sasl_username")).user
    assert OutboundPPR(FULL, cfg=settings(user_key="ccert_subject")).user == "cert"


def test_the_text_none_is_no_value_on_the_search_path() -> None:
    assert OutboundPPR({**FULL, "sasl_username": "None"}, cfg=LENIENT).user == "cert"
    with pytest.raises(ValueError, match="client_address"):
        _ = OutboundPPR(dict.fromkeys(FULL, "None"), cfg=LENIENT).user


def test_the_text_none_is_a_login_if_the_user_key_is_required() -> None:
    assert OutboundPPR({**FULL, "sasl_username": "None"}).user == "none"


def test_every_spelling_of_a_login_is_one_user() -> None:
    for login in ("alice@example.org", "Alice@example.org", "alice@EXAMPLE.ORG", "alice@example.org."):
        assert OutboundPPR({"sasl_username": login}).user == "alice@example.org"
    chapps = dataclasses.replace(Chapps(), fold_case=False)
    assert OutboundPPR({"sasl_username": "Alice@EXAMPLE.ORG"}, cfg=Settings(chapps=chapps)).user == "Alice@example.org"


@pytest.mark.parametrize(
    ("missing", "user"),
    [
        ((), "sasl"),
        (("sasl_username",), "cert"),
        (("sasl_username", "ccert_subject"), "a@b"),
        (("sasl_username", "ccert_subject", "sender"), "192.0.2.1"),
    ],
)
def test_the_search_path_is_followed_if_the_user_key_is_not_required(missing: tuple[str, ...], user: str) -> None:
    assert OutboundPPR(without(*missing), cfg=LENIENT).user == user


def test_the_user_key_comes_first_on_the_search_path() -> None:
    cfg = settings(require_user_key=False, user_key="sender")
    assert OutboundPPR(FULL, cfg=cfg).user == "a@b"
    assert OutboundPPR(without("sender"), cfg=cfg).user == "sasl"


def test_no_user_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="client_address"):
        _ = OutboundPPR({"helo_name": "x"}, cfg=LENIENT).user


def test_a_required_but_empty_user_key_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="user_key"):
        _ = OutboundPPR(FULL, cfg=settings(user_key="")).user


def test_the_user_is_cached() -> None:
    attributes = dict(FULL)
    request = OutboundPPR(attributes)
    assert request.user == "sasl"
    attributes["sasl_username"] = "other"
    assert request.user == "sasl"


def test_search_functions_are_cached_by_path_and_can_be_cleared() -> None:
    OutboundPPR.clear_memoized_routines()
    for _ in range(3):
        assert OutboundPPR(FULL).user and OutboundPPR(FULL, cfg=LENIENT).user
    assert len(OutboundPPR._memoized_routines) == 2
    OutboundPPR.clear_memoized_routines()
    assert not OutboundPPR._memoized_routines
    assert OutboundPPR(FULL).user == "sasl"


class Campaign(OutboundPPR):
    """A site's own request: all mail of one campaign counts together."""

    def __init__(self, payload: Mapping[str, str]) -> None:
        super().__init__(payload)
        self._campaign = payload.get("sender", "").partition("+")[2]

    def _search_function(self) -> Callable[[OutboundPPR], str]:
        return lambda request: self._campaign or OutboundPPR._search_function(self)(request)


def test_a_subclass_may_have_private_attributes_and_its_own_search_function() -> None:
    assert Campaign({"sender": "news+spring@example.com"}).user == "spring@example.com"
    request = Campaign(FULL)
    assert request.user == "sasl"
    with pytest.raises(AttributeError, match="cannot be changed"):
        request.sender = "other"


@pytest.mark.parametrize(
    ("text", "plain"),
    [("lapt+C3+B6p+20user", "laptöp user"), ("plain", "plain"), ("a+2Bb", "a+b"), ("a+zz", "a+zz"), ("+", "+")],
)
def test_certificate_names_are_decoded_from_xtext(text: str, plain: str) -> None:
    assert decode_xtext(text) == plain
    assert OutboundPPR({"ccert_subject": text}, cfg=settings(user_key="ccert_subject")).user == plain
