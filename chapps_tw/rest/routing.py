"""Declarations of routes, from which both the Klein application and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from chapps_tw.rest.models.base import Input, Nothing
from chapps_tw.security.tokens import Scope

JSON = "application/json"

MAX_BODY: Final = 1 << 20
"""The largest body of a request in bytes."""


class Refusal(Exception):
    """An error answer.

    :ivar status: the HTTP status.
    :ivar detail: one sentence; for 422 a list of errors, each with ``loc``, ``msg`` and ``type``.
    :ivar headers: response headers.
    :ivar beside: further members of the object.
    """

    def __init__(
        self,
        status: int,
        detail: str | list[dict[str, Any]],
        headers: Mapping[str, Sequence[str]] | None = None,
        beside: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.beside = beside or {}


def invalid(where: str, name: str, sentence: str) -> Refusal:
    """Return a 422 for one error that the models cannot detect."""
    return Refusal(422, [fault(where, name, sentence)])


def fault(where: str, name: str, sentence: str) -> dict[str, Any]:
    """Return one error of the detail of a 422."""
    return {"loc": [where, name], "msg": sentence, "type": "value_error"}


class Reply(NamedTuple):
    """An answer in the envelope.

    :ivar response: the value of ``response``.
    :ivar beside: further members of the envelope.
    :ivar remarks: sentences.
    :ivar status: the HTTP status; 0 for the route's default.
    :ivar headers: response headers, name to value.
    """

    response: Any
    beside: Mapping[str, Any] = {}
    remarks: Sequence[str] = ()
    status: int = 0
    headers: Mapping[str, str] = {}


class Raw(NamedTuple):
    """An answer without the envelope.

    :ivar headers: response headers, name to value.
    """

    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}


class Link(NamedTuple):
    """A Link Object of OpenAPI: a follow-up request that uses the answer.

    :ivar operation: its operation id.
    :ivar parameters: name to the runtime expression of the value.
    :ivar body: a runtime expression, ``""`` for none.
    """

    operation: str
    parameters: Mapping[str, str] = {}
    body: str = ""


M = TypeVar("M", bound=Input)


@dataclass(frozen=True)
class Route(Generic[M]):
    """One method on one path.

    :ivar summary: a short description.
    :ivar note: a longer description.
    :ivar path: with parameters in braces, each a field of ``input``.
    :ivar input: the model of all parameters. Fields that are not in the path come from the query
        (``query``) or from the body (``body``), never from both.
    :ivar body: ``""`` for none, ``"*"`` for an object of the fields, else the name of the field that
        is the whole body.
    :ivar query: whether fields that are not in the path may be query parameters.
    :ivar wrapped: name and model of an alternative form of the body: ``{name: {fields}, ...}``.
    :ivar text: parses a ``text/plain`` body into the value of the ``body`` field; raises ``ValueError``.
    :ivar text_pattern: a regular expression for texts that it parses, for the document.
    :ivar max_body: the largest body in bytes. Of JSON, ``MAX_BODY`` is the most anyway.
    :ivar answer: the model of the answer, ``None`` if it is not JSON.
    :ivar errors: statuses other than those common to all routes.
    :ivar scope: the scope that a token needs. What only reads needs ``READ``, and nothing else does.
    :ivar open: whether no token is required.
    :ivar open_ready: whether ``[API] open_ready`` applies.
    :ivar hidden: whether it is omitted from the OpenAPI document.
    :ivar follow: links to follow-up requests.
    :ivar browser: whether the token may be the password of Basic authentication (RFC 7617).
    """

    method: str
    path: str
    summary: str
    handler: Callable[[M], Coroutine[Any, Any, Reply | Raw]]
    input: type[M] = Nothing  # type: ignore[assignment]
    answer: type[BaseModel] | None = None
    body: str = ""
    query: bool = True
    wrapped: tuple[str, type[Input]] | None = None
    text: Callable[[bytes], Any] | None = None
    text_pattern: str = ""
    max_body: int = MAX_BODY
    status: int = 200
    errors: tuple[int, ...] = ()
    other_answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    content_type: str = JSON
    scope: Scope = Scope.READ
    open: bool = False
    open_ready: bool = False
    browser: bool = False
    tag: str = ""
    note: str = ""
    hidden: bool = False
    follow: tuple[Link, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.scope is not Scope.READ

    @property
    def rule(self) -> str:
        """The path as a Klein rule, without a trailing slash."""
        path = self.path.replace("{id}", "<id:id>").replace("{user_id}", "<id:user_id>")
        return path.replace("{", "<").replace("}", ">").rstrip("/") or "/"

    @property
    def path_fields(self) -> list[str]:
        return [part[1:-1] for part in self.path.split("/") if part.startswith("{")]

    @property
    def other_fields(self) -> list[str]:
        """The fields that come from the query or the body."""
        return [name for name in self.input.model_fields if name not in self.path_fields]

    @property
    def query_fields(self) -> list[str]:
        if not self.query:
            return []
        only_body = self.body if self.text else ""
        return [name for name in self.other_fields if name != only_body]

    @property
    def body_optional(self) -> bool:
        """Whether the body may be missing: every field is optional, or may be a query parameter."""
        if self.body == "*" and not self.query:
            return False
        required = [name for name in self.other_fields if self.input.model_fields[name].is_required()]
        return not required or set(required) <= set(self.query_fields)
