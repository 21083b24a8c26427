"""Sender domain authorization: may this user send as this sender?"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from typing import Any

from chapps_tw.config import Settings
from chapps_tw.decision import CACHE, DATABASE, Decision, Reason, fill
from chapps_tw.interfaces import BookUnavailable, LiveState, PolicyBook, Verdict
from chapps_tw.names import split_address
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies import UNKNOWN_TTL
from chapps_tw.policies.refresh import never

SPACE = "sda"

# Before MAIL FROM there is no sender to judge; VRFY and ETRN carry none (SMTPD_POLICY_README).
STAGES = frozenset(("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"))


class SenderDomainAuthPolicy:
    """Lets a user send from the domains and the addresses that are linked to the user.

    :param due: whether a copy is to be compared with the book: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: how often the book's copy in the state was looked for.
    :ivar misses: how often it was not there.
    """

    name = "SenderDomainAuthPolicy"

    def __init__(
        self, settings: Settings, state: LiveState, book: PolicyBook, due: Callable[[Hashable], bool] = never
    ) -> None:
        self._settings = settings.sda
        self._no_user = settings.chapps.no_user_key_response
        self._state = state
        self._book = book
        self._due = due
        self.looks = self.misses = 0

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Judge the sender of a request.

        :raises StateUnavailable, BookUnavailable: when they cannot be asked.
        """
        return self._judge(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """What :meth:`decide` would answer, keeping nothing. Raises the same."""
        return self._judge(request, keep=False)

    async def _judge(self, request: OutboundPPR, keep: bool) -> Decision:
        if request.get("protocol_state") not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        sender = request.get("sender")
        if not sender and self._settings.null_sender_ok:
            return self._accept(Reason.NULL_SENDER_ACCEPTED, request)
        try:
            user = request.user
        except (AuthenticationFailureException, ValueError):
            return Decision(self._no_user, Reason.NO_USER, self.name)
        if not sender:
            return self._refuse(Reason.NULL_SENDER_REFUSED, user, sender)
        email, domain = split_address(sender)
        if not domain:
            return self._refuse(Reason.SENDER_UNCLEAR, user, sender)
        self.looks += 1
        source, detail = CACHE, ""
        if keep and self._due((user, domain, email)):
            await self._compare(user, domain, email)
        by_domain, by_email = await self._state.verdicts(SPACE, user, (domain, email))
        if by_domain.allowed is None or (not by_domain.allowed and by_email.allowed is None):
            source = DATABASE
            by_domain, by_email, detail = await self._look_up(user, domain, email, by_domain, by_email, keep)
        if by_domain.allowed:
            return self._accept(Reason.AUTHORIZED_DOMAIN, request, source)
        if by_email.allowed:
            return self._accept(Reason.AUTHORIZED_EMAIL, request, source)
        return self._refuse(Reason.SENDER_NOT_AUTHORIZED, user, sender, source, detail)

    async def _compare(self, user: str, domain: str, email: str) -> None:
        """Drop the copies of verdicts where the book says something else by now; they go on without the book."""
        by_domain, by_email = await self._state.verdicts(SPACE, user, (domain, email))
        if by_domain.allowed is None and by_email.allowed is None:
            return
        with suppress(BookUnavailable):
            grant = await self._book.senders_of(user, domain, email)
            if by_domain.allowed not in (None, grant.domain) or by_email.allowed not in (None, grant.email):
                await self._state.drop_verdicts(SPACE, user, (domain, email))

    async def _look_up(
        self, user: str, domain: str, email: str, by_domain: Verdict, by_email: Verdict, keep: bool
    ) -> tuple[Verdict, Verdict, str]:
        """Ask the book, and keep what it says for the next time.

        :returns: both verdicts; and what else it says, which is not kept.
        """
        self.misses += 1
        grant = await self._book.senders_of(user, domain, email)
        if keep:
            verdicts = [(domain, grant.domain, by_domain.token), (email, grant.email, by_email.token)]
            ttl = self._settings.cache_ttl
            if not (grant.domain or grant.email):
                ttl = min(UNKNOWN_TTL, ttl)
            await self._state.keep_verdicts(SPACE, user, verdicts, ttl)
        detail = "" if grant.known else "there is no such user"
        return by_domain._replace(allowed=grant.domain), by_email._replace(allowed=grant.email), detail

    def _accept(self, reason: Reason, request: OutboundPPR, source: str = "") -> Decision:
        text = self._settings.acceptance_message
        if "{" in text:
            text = fill(text, {"user": _user_of(request), "sender": request.get("sender", "-")})
        return Decision(text, reason, self.name, source=source)

    def _refuse(self, reason: Reason, user: str, sender: str, source: str = "", detail: str = "") -> Decision:
        text = fill(self._settings.rejection_message, {"user": user, "sender": sender})
        return Decision(text, reason, self.name, detail=detail, source=source)


def _user_of(request: OutboundPPR) -> str:
    try:
        return request.user
    except (AuthenticationFailureException, ValueError):
        return "-"
