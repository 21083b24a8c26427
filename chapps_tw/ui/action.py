"""What an action of the page is: a question, and one call of a route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from chapps_tw.rest.routing import Refusal, Reply
from chapps_tw.ui.views import Fields, Visit

Options = Sequence[tuple[str, str]]


class Field(NamedTuple):
    """A field of the question.

    :ivar kind: ``text``, ``number``, ``until``, ``choice`` or ``flag``.
    :ivar options: of ``choice``: values with what is shown.
    """

    name: str
    label: str
    kind: str = "text"
    value: str = ""
    options: Options = ()
    required: bool = True
    hint: str = ""


class Question(NamedTuple):
    """What is asked before an action.

    :ivar says: sentences: what it is about, and what will happen.
    """

    says: Sequence[str]
    fields: Sequence[Field] = ()


class Done(NamedTuple):
    """What an action did.

    :ivar says: sentences for the next page.
    :ivar url: the next page.
    """

    says: Sequence[str]
    url: str


@dataclass(frozen=True)
class Action:
    """An action.

    :ivar route: method and path of the route that it calls; its scope is needed.
    :ivar about: names of the fields that say what it is about.
    :ivar ask: returns the question.
    :ivar act: does it, with the fields of the form.
    :ivar danger: whether it takes something away from somebody.
    """

    name: str
    title: str
    route: tuple[str, str]
    about: tuple[str, ...]
    ask: Callable[[Visit, Fields], Awaitable[Question]]
    act: Callable[[Visit, Fields], Awaitable[Done]]
    danger: bool = False


UNTIL = Field("until", "Until", "until", "1d")
REASON = Field("reason", "Reason", required=False, hint="For other administrators.")


def moment(form: Fields) -> str:
    """Return the end that a form names: a duration, or the date and time that was entered instead.

    The browser says in which zone that is.
    """
    exact = form["until_exact"]
    return f"{exact}{form['until_zone'] or 'Z'}" if exact else form["until"]


def whole(form: Fields, name: str, label: str) -> int:
    """Return a number of a form. Raises :class:`Refusal` 422."""
    text = form[name]
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise Refusal(422, f"{label} must be a whole number.")
    return int(text)


def ids_of(form: Fields) -> list[int]:
    """Return the ids of the entries that were selected. Raises :class:`Refusal` 422."""
    ids = [int(each) for each in form.all("id") if each.isascii() and each.isdigit() and len(each) < 11]
    if not ids:
        raise Refusal(422, "Nothing is selected.")
    return ids


def subject(form: Fields) -> dict[str, str]:
    """Return the user or the domain that a form is about, as fields of a route."""
    return {name: form[name] for name in ("user", "domain") if form[name]}


def card_of(form: Fields) -> tuple[str, str]:
    """Return the view and the name of the user or the domain that a form is about."""
    return ("user", form["user"]) if form["user"] else ("domain", form["domain"])


def remarks(reply: Reply) -> list[str]:
    """Return the remarks of an answer."""
    return list(reply.remarks)
