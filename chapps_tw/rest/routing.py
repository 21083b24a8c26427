"""What a route is: one declaration from which both the Klein application and OpenAPI are made."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel

from chapps_tw.rest.models.base import Input, Nothing

JSON = "application/json"


class Refusal(Exception):
    """A request that is answered with an error.

    :ivar status: the HTTP status.
    :ivar detail: one sentence; with 422 a list with ``loc``, ``msg`` and ``type`` of each fault.
    :ivar headers: to be sent with it.
    :ivar beside: to stand beside the detail.
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
    """The 422 for one fault that the models cannot tell."""
    return Refusal(422, [fault(where, name, sentence)])


def fault(where: str, name: str, sentence: str) -> dict[str, Any]:
    """One entry of the list that is the detail of a 422."""
    return {"loc": [where, name], "msg": sentence, "type": "value_error"}


class Reply(NamedTuple):
    """An answer in the envelope.

    :ivar response: what stands in ``response``.
    :ivar beside: what stands beside it.
    :ivar remarks: sentences.
    :ivar status: the HTTP status, 0 for that of the route.
    :ivar headers: name to value.
    """

    response: Any
    beside: Mapping[str, Any] = {}
    remarks: Sequence[str] = ()
    status: int = 0
    headers: Mapping[str, str] = {}


class Raw(NamedTuple):
    """An answer that is no envelope.

    :ivar headers: name to value.
    """

    body: bytes
    content_type: str
    headers: Mapping[str, str] = {}


class Link(NamedTuple):
    """What can be asked next with an answer (a Link Object of OpenAPI).

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

    :ivar summary: what it does, in a few words.
    :ivar note: what more there is to say.
    :ivar path: with its parameters in braces, each a field of ``input``.
    :ivar input: all that is taken, in one model. What is not in the path comes from the query
        (``query``) or from the body (``body``); never from both.
    :ivar body: ``""`` for none, ``"*"`` for an object of the fields, else the field whose bare value
        the body is.
    :ivar query: whether fields that are not in the path may be query parameters.
    :ivar wrapped: a name, and the model of the other form of the body: ``{name: {fields}, ...}``.
    :ivar text: reads a ``text/plain`` body into the value of the ``body`` field; raises ``ValueError``.
    :ivar answer: the model of the answer, ``None`` where it is no JSON.
    :ivar errors: statuses beside those that every route may have.
    :ivar changes: a read-only token will not do.
    :ivar open: needs no token.
    :ivar hidden: not to be documented.
    :ivar follow: what can be asked next.
    :ivar browser: a browser may send the token as the password of Basic authentication (RFC 7617).
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
    status: int = 200
    errors: tuple[int, ...] = ()
    other_answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    content_type: str = JSON
    changes: bool = False
    open: bool = False
    browser: bool = False
    tag: str = ""
    note: str = ""
    hidden: bool = False
    follow: tuple[Link, ...] = ()

    @property
    def rule(self) -> str:
        """The path as Klein takes it, without a final slash."""
        path = self.path.replace("{id}", "<id:id>")
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
        """Whether all that the body may hold can be left out, or be in the query."""
        required = [name for name in self.other_fields if self.input.model_fields[name].is_required()]
        return not required or set(required) <= set(self.query_fields)
