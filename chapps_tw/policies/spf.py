"""SPF (RFC 7208): may this client send mail for this domain?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from chapps_tw.config.settings import PostfixSPFActions, Settings
from chapps_tw.config.settings import SPFEnforcementPolicy as Section
from chapps_tw.interfaces.book import PolicyBook
from chapps_tw.interfaces.state import LiveState, ValueKey
from chapps_tw.interfaces.value_keys import check_spf
from chapps_tw.mail.decision import CACHE, Decision, Reason, fill
from chapps_tw.mail.received_spf import SpfResult, received_spf
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies import exemptions
from chapps_tw.policies.cached_book import Cached, CachedBook, Stored
from chapps_tw.policies.exemptions import Exempt, nobody
from chapps_tw.policies.inbound import domain_of
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec
from chapps_tw.policies.stages import of_recipient

# At DATA and END-OF-MESSAGE, a request has a recipient only if exactly one was accepted (SMTPD_POLICY_README).
STAGES = frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))

_PASS_ON = "DUNNO"
_ON, _OFF = "1", "0"

_REASONS = {
    "pass": Reason.SPF_PASS,
    "fail": Reason.SPF_FAIL,
    "softfail": Reason.SPF_SOFTFAIL,
    "none": Reason.SPF_NONE,
    "neutral": Reason.SPF_NEUTRAL,
    "temperror": Reason.SPF_TEMPERROR,
    "permerror": Reason.SPF_PERMERROR,
}


class Identities(NamedTuple):
    """The arguments of an SPF check, as Postfix sends them.

    :ivar client: IP address of the client.
    :ivar sender: the MAIL FROM address, ``""`` is the null sender.
    """

    client: str
    helo: str
    sender: str


class SPFEnforcementPolicy:
    """Checks SPF, and enforces the result for domains with the flag ``check_spf``.

    :param check: takes client address, HELO name and MAIL FROM.
    :param receiver: name of this host, for the header.
    :param due: whether to compare a cached flag with the book now: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    """

    name = "SPFEnforcementPolicy"

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: PolicyBook,
        check: Callable[[str, str, str], Awaitable[SpfResult]],
        receiver: str = "",
        due: Callable[[Hashable], bool] = never,
        exempt: Exempt = nobody,
    ) -> None:
        self._settings = settings.spf
        self._book = book
        self._version = state.version
        self._flags = CachedBook(state, settings.spf.cache_ttl, due)
        self._exempt = exempt
        self._actions = actions(settings.spf_actions)
        self._check = check
        self._receiver = receiver

    @property
    def looks(self) -> int:
        """Number of lookups of flags."""
        return self._flags.looks

    @property
    def misses(self) -> int:
        """Number of flags that were not cached."""
        return self._flags.misses

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Decide about a message to one recipient.

        Returns a header for each recipient; :func:`~chapps_tw.policies.one_header.one_header` keeps one per message.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        return self._judge(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, keep=False)

    async def _judge(self, request: OutboundPPR, keep: bool) -> Decision:
        get = request.get
        recipient, stage = get("recipient", ""), get("protocol_state", "")
        if not recipient or stage not in STAGES:
            return Decision(_PASS_ON, Reason.STAGE_NOT_JUDGED, self.name)
        if (exemption := await self._exempt(request, exemptions.SPF, keep)) is not None:
            return Decision(_PASS_ON, Reason.EXEMPTED, self.name, detail=exemptions.detail_of(exemption))
        identities = Identities(get("client_address", ""), get("helo_name", ""), get("sender", ""))
        if self._settings.null_sender_ok and not identities.sender:
            return Decision(_PASS_ON, Reason.NULL_SENDER_ACCEPTED, self.name)
        domain, enforced, source = domain_of(recipient), False, "dns"
        if domain:
            enforced, read_from = await self._is_enforced(request, domain, keep)
            source = f"{read_from} dns"
        found = await self._check(*identities)
        return self._decision(found, identities, stage, enforced, source)

    async def _is_enforced(self, request: OutboundPPR, domain: str, keep: bool) -> tuple[bool, str]:
        """Return the flag of a domain, and its source."""
        keys = (check_spf(domain),)
        version = self._version() if keep else None
        if version is not None and (recalled := self._flags.recall(keys)) is not None:
            request.rely_on(version)
            return recalled[0] == _ON, CACHE
        [text], source = await self._flags.read(keys, self._look_up, keep)
        return text == _ON, source

    async def _look_up(self, keys: Sequence[ValueKey], _cached: Cached) -> Sequence[Stored]:
        return [Stored(_ON if (await self._book.flags_of(key.owner)).check_spf else _OFF) for key in keys]

    def _decision(self, found: SpfResult, identities: Identities, stage: str, enforced: bool, source: str) -> Decision:
        wanted = self._actions[found.result] if enforced else "prepend"
        greylist = wanted == "greylist"
        if greylist or wanted == "prepend":
            action = self._header(found, identities, stage)
        elif wanted in ("dunno", "okay"):
            # OK would bypass a later reject_unauth_destination.
            action = _PASS_ON
        else:
            action = fill(wanted, {"reason": reason(found, identities.client)})
        return Decision(
            action,
            _REASONS[found.result],
            self.name,
            detail=_detail(found),
            greylist=greylist,
            # The hosts of a pool differ in their HELO names: only the MAIL FROM domain identifies the pool.
            client=found.domain if found.result == "pass" and found.identity == "mailfrom" else "",
            source=source,
        )

    def _header(self, found: SpfResult, identities: Identities, stage: str) -> str:
        # Postfix does not accept PREPEND at END-OF-MESSAGE.
        if stage == "END-OF-MESSAGE":
            return _PASS_ON
        return "PREPEND " + received_spf(found, *identities, self._receiver)


def reason(found: SpfResult, client: str) -> str:
    """Return the reason for the sender: the domain's explanation string, or the result in words."""
    domain = found.domain or "the sender"
    if found.explanation:
        return f"{domain} explains: {found.explanation}"
    if found.result in ("temperror", "permerror"):
        return f"{domain}: {found.problem}" if found.problem else domain
    return f"{domain} says {found.result} for {client or 'this client'}"


def _detail(found: SpfResult) -> str:
    """Describe the result for the log, with the name servers, which the sender must not see."""
    said = [found.identity, found.domain, found.mechanism or found.problem, found.asked and f"({found.asked})"]
    return " ".join([each for each in said if each])


def actions(options: PostfixSPFActions) -> Mapping[str, str]:
    """Return the configured action for each result (RFC 7208, section 2.6)."""
    return {
        "pass": options.passing,
        "fail": options.fail,
        "softfail": options.softfail,
        "none": options.none_neutral,
        "neutral": options.none_neutral,
        "temperror": options.temperror,
        "permerror": options.permerror,
    }


SPEC = PolicySpec(
    section=Section,
    direction=Direction.INBOUND,
    make=lambda use: SPFEnforcementPolicy(
        use.settings, use.state, use.book, use.check_spf, use.receiver, use.due, use.exempt
    ),
    extra_time=lambda settings: settings.spf.spf_query_timeout,
    needs=lambda _: [of_recipient(Section.section)],
    cache="spf_flags",
)
