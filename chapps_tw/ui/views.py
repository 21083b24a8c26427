"""What the views of the page are made of: what is asked, and what is answered."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode

from twisted.web.iweb import IRequest

from chapps_tw.rest.calls import Calls
from chapps_tw.rest.routing import Refusal, Reply
from chapps_tw.security.tokens import Scope, Token
from chapps_tw.ui.sessions import Session

MAX_FIELDS = 2000


class Html(NamedTuple):
    """A template to render with values."""

    template: str
    values: Mapping[str, Any] = {}
    status: int = 200


class Goto(NamedTuple):
    """A redirect to another view.

    :ivar session: id of the session that begins with it; ``""`` ends the present one.
    """

    url: str
    session: str | None = None


class Raw(NamedTuple):
    """An answer that is no page.

    :ivar headers: name to value.
    """

    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}


class Fields:
    """The fields of a query or of a form.

    :raises Refusal: 400, if they cannot be read.
    """

    def __init__(self, encoded: bytes = b"") -> None:
        self._values: dict[str, list[str]] = {}
        try:
            text = encoded.decode("ascii")
            pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
        except ValueError:
            raise Refusal(400, f"The form is not UTF-8, or has more than {MAX_FIELDS} fields.") from None
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.strip())

    def __getitem__(self, name: str) -> str:
        """Return the value of a field; ``""`` if there is none."""
        return self._values.get(name, [""])[0]

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self._values.get(name, [])

    def whole(self, name: str, default: int) -> int:
        """Return the value of a field as a number that is not negative."""
        text = self[name]
        return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default


@dataclass(frozen=True)
class Visit:
    """A request of somebody who has logged in.

    :ivar session: a view without a session gets ``None``.
    """

    request: IRequest
    session: Session | None
    query: Fields
    form: Fields
    calls: Calls = field(repr=False)

    @property
    def token(self) -> Token | None:
        return self.session.token if self.session else None

    @property
    def is_part(self) -> bool:
        """Whether only a part of the page is wanted, by htmx."""
        return bool(self.request.getHeader(b"hx-request"))

    def may(self, scope: Scope) -> bool:
        """Return whether the visitor may do what needs a scope."""
        return self.token is None or self.token.scope.includes(scope)

    def can(self, method: str, path: str) -> bool:
        """Return whether the visitor may call a route."""
        return self.may(self.calls.scope(method, path))

    async def call(self, method: str, path: str, **values: Any) -> Reply:
        """Return the answer of a route. Raises :class:`Refusal`, and what its handler raises."""
        return await self.calls.call(self.token, method, path, values)

    async def find(self, path: str, **values: Any) -> Reply | None:
        """Return the answer of a GET route; ``None`` for what does not exist, or can have no such name."""
        try:
            return await self.call("GET", path, **values)
        except Refusal as refusal:
            if refusal.status in (404, 422):
                return None
            raise


Answer = Html | Goto | Raw
Handler = Callable[[Visit], Awaitable[Answer]]


class View(NamedTuple):
    """One method on one path.

    :ivar open: whether no session is needed.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False


def url(path: str, **query: object) -> str:
    """Return the address of a view. Empty values are left out."""
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"/ui/{path}" + (f"?{urlencode(given)}" if given else "")


def sentences(refusal: Refusal) -> list[str]:
    """Return what is wrong, for people."""
    if isinstance(refusal.detail, str):
        remarks = refusal.beside.get("remarks", [])
        return [refusal.detail, *remarks]
    return [f"{_name(each['loc'])} {each['msg']}".strip() for each in refusal.detail]


def _name(place: list[Any]) -> str:
    return " ".join(str(each).replace("_", " ") for each in place[1:]).capitalize()
