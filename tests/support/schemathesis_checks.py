"""Additional checks for Schemathesis, which loads this file."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import schemathesis
from schemathesis import Case, CheckContext, Response

KINDS = ("users", "domains", "emails", "quotas")

_ID = re.compile(r"([0-9]+)(?:\.0+)?")


@schemathesis.check
class ThereUntilDeleted:
    """An entry exists from its creation until its deletion.

    Schemathesis' own ``use_after_free`` and ``ensure_resource_availability`` know objects by the path of
    a request. Here DELETE has their ids in the query, and PUT has the id in the body.
    """

    def __init__(self) -> None:
        self.there: dict[tuple[str, int], bool] = {}
        self.asked: set[bool] = set()

    def after_response(self, ctx: CheckContext, response: Response, case: Case[Any]) -> None:
        method, url = str(response.request.method), urlsplit(str(response.request.url))
        kind, _, rest = url.path.strip("/").partition("/")
        if kind not in KINDS:
            return
        status = response.status_code
        if rest:
            id, _, linked = rest.partition("/")
            self._check(kind, _number(id), status)
            if method == "DELETE" and status == 200 and not linked:
                self.there[kind, _number(id)] = False
        elif method == "POST" and status == 201:
            self.there[kind, json.loads(response.content)["response"]["id"]] = True
        elif method == "PUT" and status in (200, 404):
            sent = response.request.body
            assert isinstance(sent, bytes)
            self._check(kind, _id_in(kind[:-1], json.loads(sent)), status)
        elif method == "DELETE" and status == 200:
            ids = parse_qs(url.query).get(f"{kind[:-1]}_ids", [])
            self.there |= dict.fromkeys([(kind, _number(id)) for id in ids], False)

    def _check(self, kind: str, number: int, status: int) -> None:
        there = self.there.get((kind, number))
        if there is None or status not in (200, 404):
            return
        self.asked.add(there)
        if there and status == 404:
            raise AssertionError(f"{number} of {kind} was created, and is not there.")
        if not there and status == 200:
            raise AssertionError(f"{number} of {kind} was deleted, and is still there.")

    def after_run(self, ctx: CheckContext) -> None:
        if self.asked != {True, False}:
            raise AssertionError("Nothing was asked of objects that were created, or that were deleted.")


def _number(text: str) -> int:
    """Return an id from a path or a query, 0 if it is invalid."""
    found = _ID.fullmatch(text)
    return int(found[1]) if found else 0


def _id_in(singular: str, body: Any) -> int:
    """Return the id in a body, flat or wrapped."""
    fields = body[singular] if isinstance(body.get(singular), dict) else body
    return int(fields["id"])
