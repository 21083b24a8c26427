"""Sender domain authorization: may this user send as this sender?"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from typing import Any

from chapps_tw.config.settings import SenderDomainAuthPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import BookUnavailable, PolicyBook
from chapps_tw.interfaces.state import LiveState, Verdict
from chapps_tw.mail.addresses import split_address, without_extension
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill
from chapps_tw.mail.memo import Memoized
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies import UNKNOWN_TTL
from chapps_tw.policies.caching import CachingPolicy
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec

SPACE = "sda"

# Size of the cache of senders, in bytes.
_CACHE_BYTES = 8 << 20

# There is no sender before MAIL FROM, nor in VRFY and ETRN (SMTPD_POLICY_README).
STAGES = frozenset(("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"))


class SenderDomainAuthPolicy(CachingPolicy):
    """Allows a user to send from the linked domains and addresses."""

    name = "SenderDomainAuthPolicy"

    def __init__(
        self, settings: Settings, state: LiveState, book: PolicyBook, due: Callable[[Hashable], bool] = never
    ) -> None:
        super().__init__(state, book, due)
        self._settings = settings.sda
        self._no_user = settings.chapps.no_user_key_response
        self._names_of = sender_names(settings)

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Decide about the sender of a request.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        return self._judge(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
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
        names = self._names_of(sender)
        if not names:
            return self._refuse(Reason.SENDER_UNCLEAR, user, sender)
        if self._settings.own_address and user in names[1:]:
            return self._accept(Reason.OWN_ADDRESS, request)
        self.looks += 1
        if keep and (assumption := self._state.assume_allowed(SPACE, user, names[0])) is not None:
            request.assume(assumption)
            return self._accept(Reason.AUTHORIZED_DOMAIN, request, CACHE)
        source, detail = CACHE, ""
        verdicts: Sequence[Verdict] = await self._state.verdicts(SPACE, user, names)
        allowed: Sequence[bool | None] = [verdict.allowed for verdict in verdicts]
        if keep and allowed[0] is not None and self._due(_compared(user, names, allowed)):
            verdicts = await self._compare(user, names, verdicts)
            allowed = [verdict.allowed for verdict in verdicts]
        if allowed[0] is None or (None in allowed and True not in allowed):
            source = DATABASE
            allowed, detail = await self._look_up(user, names, verdicts, keep)
            if keep:
                # What was just read need not be compared for a while.
                self._due(_compared(user, names, allowed))
        if allowed[0]:
            return self._accept(Reason.AUTHORIZED_DOMAIN, request, source)
        if True in allowed:
            return self._accept(Reason.AUTHORIZED_EMAIL, request, source)
        return self._refuse(Reason.SENDER_NOT_AUTHORIZED, user, sender, source, detail)

    async def _compare(self, user: str, names: Sequence[str], cached: Sequence[Verdict]) -> Sequence[Verdict]:
        """Delete cached verdicts that differ from the book, and return what is cached then.

        If the book is unavailable, they stay cached.
        """
        with suppress(BookUnavailable):
            _, allowed = await self._ask(user, names)
            if any(each.allowed not in (None, current) for each, current in zip(cached, allowed, strict=True)):
                await self._state.drop_verdicts(SPACE, user, names)
                return await self._state.verdicts(SPACE, user, names)
        return cached

    async def _ask(self, user: str, names: Sequence[str]) -> tuple[bool, Sequence[bool]]:
        """Return whether the book contains a user, and whether each name is linked to it."""
        domain, email, base = (*names, "", "")[:3]
        grant = await self._book.senders_of(user, domain, email, base)
        return grant.known, (grant.domain, grant.email, grant.base)[: len(names)]

    async def _look_up(
        self, user: str, names: Sequence[str], before: Sequence[Verdict], keep: bool
    ) -> tuple[Sequence[bool], str]:
        """Look up the names of a sender in the book, and cache the verdicts if ``keep``.

        :param before: the answer of the live state for each name.
        :returns: whether each name is linked, and a detail for the log, which is not cached.
        """
        self.misses += 1
        known, allowed = await self._ask(user, names)
        if keep:
            tokens = (verdict.token for verdict in before)
            ttl = self._settings.cache_ttl if any(allowed) else min(UNKNOWN_TTL, self._settings.cache_ttl)
            await self._state.keep_verdicts(SPACE, user, list(zip(names, allowed, tokens, strict=True)), ttl)
        return allowed, "" if known else "there is no such user"

    def _accept(self, reason: Reason, request: OutboundPPR, source: str = "") -> Decision:
        text = self._settings.acceptance_message
        if "{" in text:
            text = fill(text, {"user": _user_of(request), "sender": request.get("sender", "-")})
        return Decision(text, reason, self.name, source=source)

    def _refuse(self, reason: Reason, user: str, sender: str, source: str = "", detail: str = "") -> Decision:
        text = fill(self._settings.rejection_message, {"user": user, "sender": sender or "<>"})
        return Decision(text, reason, self.name, detail=detail, source=source)


def sender_names(settings: Settings) -> Callable[[str], tuple[str, ...]]:
    """Return a function that finds the names by which a sender may be authorized, in normal form.

    It returns the domain; the address, if the book may contain it; and the address without its extension, if it has
    one. It returns nothing for a sender without a domain.
    """
    fold_case, separators = settings.chapps.fold_case, settings.sda.subaddress_separators

    def names_of(sender: str) -> tuple[str, ...]:
        email, domain = split_address(sender, fold_case)
        return tuple(filter(None, (domain, email, without_extension(email, separators))))

    return Memoized(names_of, _CACHE_BYTES).__getitem__


def _compared(user: str, names: Sequence[str], allowed: Sequence[bool | None]) -> tuple[str, ...]:
    """Return the key of a comparison, which all senders of an authorized domain share: only the domain matters."""
    return (user, names[0]) if allowed[0] else (user, *names)


def _user_of(request: OutboundPPR) -> str:
    try:
        return request.user
    except (AuthenticationFailureException, ValueError):
        return "-"


SPEC = PolicySpec(
    section=Section,
    direction=Direction.OUTBOUND,
    make=lambda use: SenderDomainAuthPolicy(use.settings, use.state, use.book, use.due),
    cache="senders",
)
