"""What the benchmark measures is what its tables say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

import pytest

from bench.__main__ import DEFAULT, options
from bench.book import LIMITED, OVER_QUOTA
from bench.mail import outbound_mail, user_name
from bench.pipelines import BY_LIMITS, PIPELINES
from bench.targets import start_service
from tests.support.servers.service import Service


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with ExitStack() as stack:
        yield start_service(stack, {}, range(3))


def answers(service: Service, listener: str, requests: list[bytes]) -> list[bytes]:
    with service.client(listener) as client:
        found = []
        for request in requests:
            client.send(request)
            found.append(f"action={client.answer()}\n".encode())
    return found


def test_a_request_to_the_listener_of_four_limits_counts_in_each(service: Service) -> None:
    [request] = islice(outbound_mail(LIMITED[:1]), 1)
    assert answers(service, BY_LIMITS[4].listener, [request]) == list(BY_LIMITS[4].expected)
    user = service.http(f"/live/limits/{user_name(LIMITED[0])}")[1]["response"]["limits"]
    assert [(each["level"], each["name"], each["used"]) for each in user] == [
        ("user", "", 1),
        ("user", "hour", 1),
        ("domain pool", "", 1),
    ]
    assert service.http("/live/rate-limits/everybody/everybody")[1]["response"]["used"] == 1


def test_a_user_over_the_quota_is_refused_again_and_again(service: Service) -> None:
    refused = PIPELINES["refused"]
    first, *others = answers(service, refused.listener, list(islice(outbound_mail([OVER_QUOTA]), 300)))
    assert first.startswith(b"action=DUNNO")
    assert all(answer.startswith(refused.expected) for answer in others)


def test_the_default_run_has_all_tables_but_the_large_book_at_8_connections_too() -> None:
    chosen = options([])
    assert chosen.table == list(DEFAULT)
    assert 8 in chosen.connections
    assert options(["--large"]).table == ["large"]
