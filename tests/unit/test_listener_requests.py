"""What is known of the requests to a listener."""

from __future__ import annotations

from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.listener_requests import OTHER, ListenerRequests

NOW = 1_790_000_000.0


def add(requests: ListenerRequests, at: float, stage: str = "RCPT", login: str = "", listener: str = "out") -> None:
    requests.add(listener, PolicyRequest({"protocol_state": stage, "sasl_username": login}), at)


def test_requests_are_counted_by_listener_stage_and_login() -> None:
    requests = ListenerRequests()
    assert requests.of("out") is None
    for at, stage, login in ((0, "DATA", "ann"), (1, "RCPT", ""), (2, "DATA", "bob"), (3, "DATA", "")):
        add(requests, NOW + at, stage, login)
    add(requests, NOW + 4, listener="in")
    asked = requests.of("out")
    assert asked is not None
    assert (asked.since, asked.at) == (NOW, NOW + 3)
    assert asked.counts == {("DATA", True): 2, ("RCPT", False): 1, ("DATA", False): 1}
    assert asked.stages == ("RCPT", "DATA")


def test_stages_that_postfix_does_not_have_are_counted_as_one() -> None:
    requests = ListenerRequests()
    for number in range(100):
        add(requests, NOW, f"{number}" * 1000)
    asked = requests.of("out")
    assert asked is not None and asked.counts == {(OTHER, False): 100}
    assert asked.stages == (OTHER,)
