"""Changes of the book over HTTP: errors as responses, and remarks about the effect."""

from __future__ import annotations

from typing import Final

from chapps_tw.interfaces.book import BookConflict, Edit
from chapps_tw.interfaces.writable_book import Changed, WritableBook
from chapps_tw.rest.author import AUTHOR
from chapps_tw.rest.routers.kinds import missing, singular
from chapps_tw.rest.routing import Refusal

AWAITS_STATE: Final = (
    "The change is stored, but the state store is unavailable. It takes effect when the store is available again."
)
AWAITS_REFRESH: Final = (
    "The change affects thousands of users. It takes effect here at once, and on other nodes within "
    "[PolicyConfigAdapter] refresh."
)


async def changed(book: WritableBook, doing: str, edit: Edit) -> Changed:
    """Change the book, with the name of the request's token as the author; return the outcome.

    :param doing: ``creating`` or the like, for messages.
    :raises Refusal: 404 if the entry does not exist, 409 if a name is taken or a linked entry does not exist, 422 for
        a value that only the book can judge.
    """
    kind = edit.kind
    try:
        return await book.change(edit, AUTHOR.get())
    except BookConflict as conflict:
        sentence = f"Unique key conflict {doing} {singular(kind)}."
        raise Refusal(409, sentence, beside={"remarks": [str(conflict)]}) from None
    except ValueError as error:
        raise Refusal(422, [{"loc": ["body"], "msg": str(error), "type": "value_error"}]) from None
    except KeyError as error:
        refusal = missing(*error.args[0])
        raise refusal if error.args[0][0] == kind else Refusal(409, str(refusal.detail)) from None


def when_in_effect(change: Changed) -> list[str]:
    """Return remarks about a change that is not in effect everywhere yet."""
    remarks = [AWAITS_REFRESH] if change.awaits_refresh else []
    return [*remarks, AWAITS_STATE] if change.awaits_state else remarks


def lost_by_users(kind: str, deletion: Changed) -> list[str]:
    """Return a remark about the users that lose a quota or a sender by a deletion, if there are any."""
    if kind == "users" or deletion.users == 0:
        return []
    one = deletion.users == 1
    users = "1 user" if one else f"{deletion.users or 'Thousands of'} users"
    if kind == "quotas":
        return [f"{users} {'has' if one else 'have'} no own quota now; without another, nothing may be sent."]
    return [f"{users} may no longer send from there, unless another link allows it."]
