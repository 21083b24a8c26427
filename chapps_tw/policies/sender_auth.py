"""Sender domain authorization: may this user send as this sender?"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any, NamedTuple

from chapps_tw.config.settings import SenderDomainAuthPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import PolicyBook
from chapps_tw.interfaces.state import LiveState, ValueKey
from chapps_tw.interfaces.value_keys import sender as verdict_key
from chapps_tw.interfaces.value_keys import senders_of_domain
from chapps_tw.mail.addresses import split_address, without_extension
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill
from chapps_tw.mail.memo import Memoized
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies import exemptions
from chapps_tw.policies.cached_book import Cached, CachedBook, Stored
from chapps_tw.policies.exemptions import Exempt, nobody
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec

# Size of the cache of senders, in bytes.
_CACHE_BYTES = 8 << 20

# There is no sender before MAIL FROM, nor in VRFY and ETRN (SMTPD_POLICY_README).
STAGES = frozenset(("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"))


# First character of a verdict. The version of its domain follows.
_ALLOWED, _FORBIDDEN = "1", "0"


class _Verdict(NamedTuple):
    """Whether a user may send as one of some names.

    :ivar source, detail: of the decision.
    """

    allowed: bool
    source: str
    detail: str = ""


class SenderDomainAuthPolicy:
    """Allows a user to send from the linked domains and addresses.

    The book is cached as one verdict for each user and name. A verdict contains the version of the domain that it is
    about, a random text that is cached, too: deleting it makes all verdicts about the domain and its addresses outdated
    at once, however many users have it.

    :param due: whether to compare a cached verdict with the book now:
        :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    """

    name = "SenderDomainAuthPolicy"

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: PolicyBook,
        due: Callable[[Hashable], bool] = never,
        exempt: Exempt = nobody,
    ) -> None:
        self._settings = settings.sda
        self._book = book
        self._verdicts = CachedBook(state, settings.sda.cache_ttl, due)
        self._exempt = exempt
        self._no_user = settings.chapps.no_user_key_response
        self._names_of = sender_names(settings)

    @property
    def looks(self) -> int:
        """Number of lookups of verdicts."""
        return self._verdicts.looks

    @property
    def misses(self) -> int:
        """Number of lookups with a verdict that was not cached."""
        return self._verdicts.misses

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
        if (exemption := await self._exempt(request, exemptions.SENDER_AUTHORIZATION, keep)) is not None:
            return self._accept(Reason.EXEMPTED, request, detail=exemptions.detail_of(exemption))
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
        # The domain alone decides about most senders. Only for others, verdicts about addresses are cached.
        by_domain = await self._find(request, user, names, names[:1], keep)
        if by_domain.allowed:
            return self._accept(Reason.AUTHORIZED_DOMAIN, request, by_domain.source)
        by_email = await self._find(request, user, names, names[1:], keep) if names[1:] else by_domain
        source = DATABASE if DATABASE in (by_domain.source, by_email.source) else CACHE
        if by_email.allowed:
            return self._accept(Reason.AUTHORIZED_EMAIL, request, source)
        return self._refuse(Reason.SENDER_NOT_AUTHORIZED, user, sender, source, by_domain.detail or by_email.detail)

    async def _find(
        self, request: OutboundPPR, user: str, names: Sequence[str], wanted: Sequence[str], keep: bool
    ) -> _Verdict:
        """Return the verdict about some of the names of a sender: the one in memory, the cached one, or the book's."""
        keys = (senders_of_domain(names[0]), *[verdict_key(user, name) for name in wanted])
        if keep and (assumed := self._verdicts.assume(keys)) is not None:
            version, *verdicts = assumed
            if all(verdict.value[1:] == version.value for verdict in verdicts):
                for each in assumed:
                    request.assume(each)
                return _Verdict(any(verdict.value[0] == _ALLOWED for verdict in verdicts), CACHE)
        question = _Question(self._book, user, names)
        (_, *texts), source = await self._verdicts.read(keys, question.ask, keep, partial(_usable, keys[0]))
        detail = "there is no such user" if source == DATABASE and question.known is False else ""
        return _Verdict(any(text[0] == _ALLOWED for text in texts), source, detail)

    def _accept(self, reason: Reason, request: OutboundPPR, source: str = "", detail: str = "") -> Decision:
        text = self._settings.acceptance_message
        if "{" in text:
            text = fill(text, {"user": _user_of(request), "sender": request.get("sender", "-")})
        return Decision(text, reason, self.name, detail=detail, source=source)

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


class _Question:
    """A question to the book about a user and the names of a sender.

    :ivar known: whether the book contains the user; ``None`` if it was not asked.
    """

    def __init__(self, book: PolicyBook, user: str, names: Sequence[str]) -> None:
        self._book = book
        self._user = user
        self._names = names
        self.known: bool | None = None

    async def ask(self, keys: Sequence[ValueKey], cached: Cached) -> Sequence[Stored]:
        """Return the verdicts of the book, with the version of the domain: the cached one, or a new one."""
        version_key = senders_of_domain(self._names[0])
        version = cached.get(version_key) or token_hex(8)
        verdicts: Mapping[str, bool] = {}
        if any(key != version_key for key in keys):
            domain, email, base = (*self._names, "", "")[:3]
            grant = await self._book.senders_of(self._user, domain, email, base)
            self.known = grant.known
            verdicts = {base: grant.base, email: grant.email, domain: grant.domain}
        # A refusal is cached briefly, because links may also be created directly in the database.
        known = True in verdicts.values()
        return [
            Stored(version)
            if key == version_key
            else Stored((_ALLOWED if verdicts[key.name] else _FORBIDDEN) + version, known)
            for key in keys
        ]


def is_allowed(verdict: str | None, version: str | None) -> bool | None:
    """Return what a cached verdict says; ``None`` if there is none, or if the version of its domain is another one."""
    return verdict[0] == _ALLOWED if verdict and version and verdict[1:] == version else None


def _usable(version_key: ValueKey, cached: Cached) -> Cached:
    """Return the version of a domain, and those verdicts that have it."""
    version = cached.get(version_key)
    if not version:
        return {}
    return {key: text for key, text in cached.items() if key == version_key or text[1:] == version}


def _user_of(request: OutboundPPR) -> str:
    try:
        return request.user
    except (AuthenticationFailureException, ValueError):
        return "-"


SPEC = PolicySpec(
    section=Section,
    direction=Direction.OUTBOUND,
    make=lambda use: SenderDomainAuthPolicy(use.settings, use.state, use.book, use.due, use.exempt),
    cache="senders",
)
