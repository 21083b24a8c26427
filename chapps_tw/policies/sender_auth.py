"""Sender domain authorization: may this user send as this sender?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from functools import cache
from secrets import token_hex

from chapps_tw.config.settings import SenderDomainAuthPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Exemption, PolicyBook
from chapps_tw.interfaces.state import LiveState, ValueKey
from chapps_tw.interfaces.value_keys import sender as verdict_key
from chapps_tw.interfaces.value_keys import senders_of_domain
from chapps_tw.mail.addresses import split_address, without_extension
from chapps_tw.mail.decision import CACHE, Decision, Reason, fill
from chapps_tw.mail.memo import Memoized
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR, search_path
from chapps_tw.policies import exemptions
from chapps_tw.policies.cached_book import Cached, CachedBook, Stored
from chapps_tw.policies.exemptions import Exempt, nobody
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec
from chapps_tw.policies.stages import of_message

# Size of the cache of senders, in bytes.
_CACHE_BYTES = 8 << 20

# There is no sender before MAIL FROM, nor in VRFY and ETRN (SMTPD_POLICY_README).
STAGES = frozenset(("MAIL", "RCPT", "DATA", "END-OF-MESSAGE"))


# First character of a verdict. The version of its domain follows.
_ALLOWED, _FORBIDDEN = "1", "0"


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
        self._state = state
        self._book = book
        self._verdicts = CachedBook(state, settings.sda.cache_ttl, due)
        self._exempt = exempt
        self._no_user = settings.chapps.no_user_key_response
        self._names_of = sender_names(settings)
        self.depends_on = ("protocol_state", "sender", *search_path(settings))
        # Without a reference to the policy: in a cycle, it would not be freed when another one replaces it.
        text, name = settings.sda.acceptance_message, self.name
        self._accepted = cache(lambda reason, source: Decision(text, reason, name, source=source))

    @property
    def looks(self) -> int:
        """Number of lookups of verdicts."""
        return self._verdicts.looks

    @property
    def misses(self) -> int:
        """Number of lookups with a verdict that was not cached."""
        return self._verdicts.misses

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decision | Awaitable[Decision]:
        """Decide about the sender of a request.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        return self._unless_exempt(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decision | Awaitable[Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._unless_exempt(request, keep=False)

    def _unless_exempt(self, request: OutboundPPR, keep: bool) -> Decision | Awaitable[Decision]:
        if request.get("protocol_state") not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        exempted = self._exempt(request, exemptions.SENDER_AUTHORIZATION, keep)
        if exempted is not exemptions.NOBODY:
            return self._after(exempted, request, keep)
        return self._judge(request, keep)

    async def _after(self, exempted: Awaitable[Exemption | None], request: OutboundPPR, keep: bool) -> Decision:
        exemption = await exempted
        if exemption is not None:
            return self._accept(Reason.EXEMPTED, request, detail=exemptions.detail_of(exemption))
        decision = self._judge(request, keep)
        return decision if isinstance(decision, Decision) else await decision

    def _judge(self, request: OutboundPPR, keep: bool) -> Decision | Awaitable[Decision]:
        """Decide at once if that is possible with what is in the memory of this process."""
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
        question = _Question(self._book, user, names)
        return (self._from_memory(request, user, sender, question) if keep else None) or self._look_up(
            request, user, sender, question, keep
        )

    async def _look_up(self, request: OutboundPPR, user: str, sender: str, question: _Question, keep: bool) -> Decision:
        reading = self._verdicts.read(question.keys, question.ask, keep, question.usable, question.needed)
        (version, *texts), source = await reading
        verdicts = [is_allowed(text, version) for text in texts]
        return self._decision(request, user, sender, verdicts, source, question.detail)

    def _from_memory(self, request: OutboundPPR, user: str, sender: str, question: _Question) -> Decision | None:
        """Decide by the values in the memory of this process; return ``None`` if one is missing."""
        cache_version, recall = self._state.version(), self._state.recall
        version_key, domain_key, *keys = question.keys
        version = recall(version_key)
        verdicts = [is_allowed(recall(domain_key), version)]
        if not verdicts[0]:
            # If the domain is linked, other verdicts are not cached.
            verdicts += [is_allowed(recall(key), version) for key in keys]
            if None in verdicts:
                return None
        self._verdicts.looks += 1
        request.rely_on(cache_version, alike=True)
        return self._decision(request, user, sender, verdicts, CACHE)

    def _decision(
        self,
        request: OutboundPPR,
        user: str,
        sender: str,
        verdicts: Sequence[bool | None],
        source: str,
        detail: str = "",
    ) -> Decision:
        if verdicts[0]:
            return self._accept(Reason.AUTHORIZED_DOMAIN, request, source)
        if True in verdicts:
            return self._accept(Reason.AUTHORIZED_EMAIL, request, source)
        return self._refuse(Reason.SENDER_NOT_AUTHORIZED, user, sender, source, detail)

    def _accept(self, reason: Reason, request: OutboundPPR, source: str = "", detail: str = "") -> Decision:
        text = self._settings.acceptance_message
        if "{" not in text and not detail:
            return self._accepted(reason, source)
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


def is_allowed(verdict: str | None, version: str | None) -> bool | None:
    """Return what a cached verdict says; ``None`` if there is none, or if the version of its domain is another one."""
    return verdict[0] == _ALLOWED if verdict and version and verdict[1:] == version else None


class _Question:
    """What the book says about a user and a sender.

    :ivar keys: of the version of the sender's domain, and of the verdict about each name.
    :ivar detail: of the decision: that the book does not contain the user.
    """

    def __init__(self, book: PolicyBook, user: str, names: Sequence[str]) -> None:
        self._book = book
        self._user = user
        self._names = names
        self.keys = (senders_of_domain(names[0]), *[verdict_key(user, name) for name in names])
        self.detail = ""

    def usable(self, cached: Cached) -> Cached:
        """Return the version of the domain, and those verdicts that have it."""
        version_key = self.keys[0]
        version = cached.get(version_key)
        return {
            key: text
            for key, text in cached.items()
            if version and (key == version_key or is_allowed(text, version) is not None)
        }

    def needed(self, cached: Cached) -> Sequence[ValueKey]:
        """Return all keys, or those of version and domain if the domain is linked: other verdicts are not cached then.

        Otherwise, each new address in the domain would have to be looked up.
        """
        version_key, domain_key = self.keys[:2]
        return self.keys[:2] if is_allowed(cached.get(domain_key), cached.get(version_key)) else self.keys

    async def ask(self, keys: Sequence[ValueKey], cached: Cached) -> Sequence[Stored]:
        """Return verdicts with the version of the domain: the cached one, or a new one."""
        version_key = self.keys[0]
        version = cached.get(version_key) or token_hex(8)
        verdicts = await self._read() if any(key != version_key for key in keys) else {}
        # A refusal is cached briefly, because links may also be created directly in the database; so is the version
        # then, because a user may try any number of domains.
        known = True in verdicts.values()
        texts = {name: (_ALLOWED if linked else _FORBIDDEN) + version for name, linked in verdicts.items()}
        return [Stored(version if key == version_key else texts[key.name], known) for key in keys]

    async def _read(self) -> Mapping[str, bool]:
        """Return whether each name is linked to the user."""
        domain, email, base = (*self._names, "", "")[:3]
        grant = await self._book.senders_of(self._user, domain, email, base)
        self.detail = "" if grant.known else "there is no such user"
        return dict(zip(self._names, (grant.domain, grant.email, grant.base), strict=False))


def _user_of(request: OutboundPPR) -> str:
    try:
        return request.user
    except (AuthenticationFailureException, ValueError):
        return "-"


SPEC = PolicySpec(
    section=Section,
    direction=Direction.OUTBOUND,
    make=lambda use: SenderDomainAuthPolicy(use.settings, use.state, use.book, use.due, use.exempt),
    needs=lambda _: [of_message(Section.section)],
    cache="senders",
)
