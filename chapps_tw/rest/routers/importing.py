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
from chapps_tw.rest.routing import Refusal, Reply, Route, fault
from chapps_tw.security.tokens import Scope

MAX_BYTES: Final = 16 << 20
_NOTE: Final = (
    f"As text/plain: at most {MAX_LINES} lines, and {MAX_BYTES >> 20} MiB. All lines are applied in one transaction, "
    "or none: a 422 lists every line without a valid form, and `remarks` of a 409 list every line that names what does "
    "not exist. Of several lines about the same user and domain, address or quota, the last one counts. The audit "
    "trail has one record of it."
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
        m.Import, answers.ImportDone, body="lines", text=bytes, text_pattern=m.LINES, max_body=MAX_BYTES,
        errors=(409,), scope=Scope.FULL, tag="import", note=_NOTE,
    )  # fmt: skip


def _refusal(bad: BadLines) -> Refusal:
    left = bad.total - len(bad.lines)
    if bad.invalid:
        faults = [fault("body", f"line {each.number}", each.sentence) for each in bad.lines]
        return Refusal(422, faults + ([fault("body", "lines", f"{left} more lines are invalid")] if left else []))
    told = [f"line {each.number}: {each.sentence}" for each in bad.lines]
    more = [f"and {left} more lines"] if left else []
    return Refusal(
        409, f"{bad.total} lines name what does not exist: nothing is done.", beside={"remarks": told + more}
    )
