"""Sends notices by mail, and to the webhook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.history import HistoryUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.notify.facts import Facts, Values, told
from chapps_tw.notify.message import Message, compose
from chapps_tw.notify.notice import DAILY_REPORT, TEST, Channel, Notice, Outcome
from chapps_tw.notify.report import Report
from chapps_tw.notify.smtp import Relay
from chapps_tw.notify.templates import TemplateProblem, Templates, template_of
from chapps_tw.notify.webhook import Webhook

MAILS: Final = 50
POSTS: Final = 16
"""How many are sent at a time."""

_UNKNOWN: Final = "another version of the service made it, in a form that this one does not know"
_NO_ADDRESS: Final = "the user has no mail address any more; see user_domain"

# Kinds of notices that no event makes.
_ALONE: Final = (TEST, DAILY_REPORT)

# Posts at the same time.
_AT_ONCE: Final = 8


class Mailer:
    """Sends notices to users and the administrator.

    :param in_thread: runs a function in a thread: templates of the administrator may take long.
    :param now: epoch seconds.
    """

    def __init__(
        self,
        options: Notify,
        facts: Facts,
        report: Report,
        relay: Relay,
        in_thread: Callable[..., Awaitable[Any]],
        now: Callable[[], float],
    ) -> None:
        self._options = options
        self._facts = facts
        self._report = report
        self._relay = relay
        self._in_thread = in_thread
        self._now = now
        self._templates = Templates(options.templates)

    async def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """Send mails (:data:`~chapps_tw.notify.delivery.Send`). Several events for the administrator are one mail."""
        values = await self._facts.of([notice for notice in notices if notice.kind not in _ALONE])
        letters = _letters(notices, values)
        found = [await self._composed(letter, values) for letter in letters]
        messages = [each for each in found if isinstance(each, Message)]
        results = iter(await self._relay.send(messages) if messages else ())
        outcomes: dict[Notice, Outcome] = {}
        for letter, each in zip(letters, found, strict=True):
            outcome = next(results) if isinstance(each, Message) else Outcome(each)
            outcomes |= dict.fromkeys(letter, outcome)
        return [outcomes[notice] for notice in notices]

    async def _composed(self, letter: Sequence[Notice], known: Mapping[Notice, Values]) -> Message | str:
        """Return the mail that tells some notices, or why there is none."""
        notice = letter[0]
        try:
            values = await self._values(letter, known)
            if values is None:
                return _UNKNOWN
            if notice.channel is Channel.USER and not values["to"]:
                return _NO_ADDRESS
            name = "admin_digest" if len(letter) > 1 else template_of(notice.channel, notice.kind)
            message: Message = await self._in_thread(self._message, notice, name, values)
        except (TemplateProblem, StateUnavailable, BookUnavailable, HistoryUnavailable) as error:
            return str(error)
        return message

    async def _values(self, letter: Sequence[Notice], known: Mapping[Notice, Values]) -> Values | None:
        notice = letter[0]
        if len(letter) > 1:
            return {"events": [known[each] for each in letter]}
        if notice.kind == DAILY_REPORT:
            return await self._report.of(notice)
        return self._facts.of_test(notice) if notice.kind == TEST else known.get(notice)

    def _message(self, notice: Notice, template: str, values: Values) -> Message:
        text = self._templates.render(template, values)
        options = self._options
        is_user = notice.channel is Channel.USER
        to = values["to"] if is_user else options.admin_address
        # A bounce of a mail to a user would help nobody.
        sender = "" if is_user else options.from_address
        return Message(sender, to, compose(text, options.from_address, to, notice.id, self._now()))


def _letters(notices: Sequence[Notice], known: Mapping[Notice, Values]) -> list[list[Notice]]:
    """Return which notices are told in one mail."""
    together = [each for each in notices if each.channel is Channel.ADMIN and each in known]
    alone = [[each] for each in notices if each not in together]
    return [*alone, together] if together else alone


class Poster:
    """Posts notices to the webhook."""

    def __init__(self, facts: Facts, webhook: Webhook) -> None:
        self._facts = facts
        self._webhook = webhook

    async def send(self, notices: Sequence[Notice]) -> Sequence[Outcome]:
        """Post notices (:data:`~chapps_tw.notify.delivery.Send`)."""
        values = await self._facts.of([notice for notice in notices if notice.kind != TEST])
        found: list[Outcome] = []
        for start in range(0, len(notices), _AT_ONCE):
            part = notices[start : start + _AT_ONCE]
            posts = [self._post(each, values.get(each)) for each in part]
            found += await gatherResults(map(Deferred.fromCoroutine, posts))
        return found

    async def _post(self, notice: Notice, values: Values | None) -> Outcome:
        if notice.kind == TEST:
            values = self._facts.of_test(notice)
        if values is None:
            return Outcome(_UNKNOWN)
        return Outcome(await self._webhook.post(notice.id, {"id": notice.id, "kind": notice.kind, **told(values)}))
