"""The OpenAPI document: made once, and not before somebody asks for it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from chapps_tw.rest.openapi import Document
from chapps_tw.rest.routers.docs import Docs


def test_nothing_is_made_before_it_is_asked_for() -> None:
    assert Document(list(Docs().routes()), "1.2.3").made == b""


def test_all_who_ask_at_once_get_the_same() -> None:
    document = Document(list(Docs().routes()), "1.2.3")
    with ThreadPoolExecutor(4) as threads:
        answers = [each.result() for each in [threads.submit(document.make) for _ in range(4)]]
    assert json.loads(answers[0])["info"]["version"] == "1.2.3"
    assert all(each is document.made for each in answers)
