"""Import of many permissions and quotas at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from chapps_tw.interfaces.book import BookConflict
from chapps_tw.interfaces.writable_book import MAX_LINES, BadLines, Changed, WritableBook
from chapps_tw.rest import import_answers as answers
from chapps_tw.rest.author import AUTHOR
from chapps_tw.rest.models import importing as m
from chapps_tw.rest.routers.changes import when_in_effect
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.security.tokens import Scope

MAX_BYTES: Final = 16 << 20
_NOTE: Final = (
    f"As text/plain: at most {MAX_LINES} lines, and {MAX_BYTES >> 20} MiB. All lines are applied in one transaction, "
    "or none: a 422 lists every line that is invalid, or names what does not exist, with its number. Of several lines "
    "about the same user and domain, address or quota, the last one counts. The audit trail has one record of it."
)


def routes(book: WritableBook) -> Iterator[Route[Any]]:
    """Return all routes of this family."""

    async def import_lines(given: m.Import) -> Reply:
        try:
            done = await book.import_lines(given.lines, given.create, AUTHOR.get())
        except BadLines as bad:
            raise _refusal(bad) from None
        except BookConflict as conflict:
            raise Refusal(409, str(conflict)) from None
        counts = {name: value for name, value in done._asdict().items() if not name.startswith("awaits_")}
        return Reply(counts, remarks=when_in_effect(Changed(None, 0, done.awaits_state, done.awaits_refresh)))

    yield Route(
        "POST", "/import/", "Allow and deny senders to users, and give them quotas, by many lines", import_lines,
        m.Import, answers.ImportDone, body="lines", text=bytes, text_pattern=f"^({m.LINE})+$", max_body=MAX_BYTES,
        errors=(409,), scope=Scope.FULL, tag="import", note=_NOTE,
    )  # fmt: skip


def _refusal(bad: BadLines) -> Refusal:
    faults = [
        {"loc": ["body", "lines", each.number], "msg": each.sentence, "type": "value_error"} for each in bad.lines
    ]
    left = bad.total - len(bad.lines)
    more = [{"loc": ["body", "lines"], "msg": f"has {left} more invalid lines", "type": "value_error"}] if left else []
    return Refusal(422, faults + more)
