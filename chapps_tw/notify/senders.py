"""Sends notices by mail, and to the webhook."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.history import HistoryUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.notify.facts import Facts, Values, told
from chapps_tw.notify.message import Message, compose
from chapps_tw.notify.notice import DAILY_REPORT, TEST, Channel, Notice
from chapps_tw.notify.report import Report
from chapps_tw.notify.smtp import Relay
from chapps_tw.notify.templates import TemplateProblem, Templates
from chapps_tw.notify.webhook import Webhook

MAILS: Final = 50
POSTS: Final = 16
"""How many are sent at a time."""

_UNKNOWN: Final = "another version of the service made it, in a form that this one does not know"
_NO_ADDRESS: Final = "the user has no mail address any more; see user_domain"

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

    async def send(self, notices: Sequence[Notice]) -> Sequence[str]:
        """Send mails (:data:`~chapps_tw.notify.delivery.Send`)."""
        values = await self._facts.of([notice for notice in notices if notice.kind not in (TEST, DAILY_REPORT)])
        found = [await self._composed(notice, values.get(notice)) for notice in notices]
        messages = [each for each in found if isinstance(each, Message)]
        results = iter(await self._relay.send(messages) if messages else ())
        return [next(results) if isinstance(each, Message) else each for each in found]

    async def _composed(self, notice: Notice, values: Values | None) -> Message | str:
        """Return the mail of a notice, or why there is none."""
        try:
            if notice.kind == DAILY_REPORT:
                values = await self._report.of(notice)
            elif notice.kind == TEST:
                values = self._facts.of_test(notice)
            if values is None:
                return _UNKNOWN
            if notice.channel is Channel.USER and not values["to"]:
                return _NO_ADDRESS
            message: Message = await self._in_thread(self._message, notice, values)
        except (TemplateProblem, StateUnavailable, BookUnavailable, HistoryUnavailable) as error:
            return str(error)
        return message

    def _message(self, notice: Notice, values: Values) -> Message:
        text = self._templates.render(f"{notice.channel}_{notice.kind}", values)
        options = self._options
        is_user = notice.channel is Channel.USER
        to = values["to"] if is_user else options.admin_address
        # A bounce of a mail to a user would help nobody.
        sender = "" if is_user else options.from_address
        return Message(sender, to, compose(text, options.from_address, to, notice.id, self._now()))


class Poster:
    """Posts notices to the webhook."""

    def __init__(self, facts: Facts, webhook: Webhook) -> None:
        self._facts = facts
        self._webhook = webhook

    async def send(self, notices: Sequence[Notice]) -> Sequence[str]:
        """Post notices (:data:`~chapps_tw.notify.delivery.Send`)."""
        values = await self._facts.of([notice for notice in notices if notice.kind != TEST])
        found: list[str] = []
        for start in range(0, len(notices), _AT_ONCE):
            part = notices[start : start + _AT_ONCE]
            posts = [self._post(each, values.get(each)) for each in part]
            found += await gatherResults(map(Deferred.fromCoroutine, posts))
        return found

    async def _post(self, notice: Notice, values: Values | None) -> str:
        if notice.kind == TEST:
            values = self._facts.of_test(notice)
        if values is None:
            return _UNKNOWN
        return await self._webhook.post(notice.id, {"id": notice.id, "kind": notice.kind, **told(values)})
