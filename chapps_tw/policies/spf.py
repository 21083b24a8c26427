"""SPF: may this client send mail of this domain?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from chapps_tw.config.settings import PostfixSPFActions, Settings
from chapps_tw.config.settings import SPFEnforcementPolicy as Section
from chapps_tw.interfaces.book import BookUnavailable, PolicyBook
from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill
from chapps_tw.mail.received_spf import SpfResult, received_spf
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.inbound import domain_of
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec

SPACE = "spf"
FLAG = "check_spf"

# At the later two there is a recipient only when exactly one was accepted (SMTPD_POLICY_README).
STAGES = frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))

_PASS_ON = "DUNNO"

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
    """What SPF is checked for, as Postfix tells it.

    :ivar client: its address.
    :ivar sender: of MAIL FROM, ``""`` is the null sender.
    """

    client: str
    helo: str
    sender: str


class SPFEnforcementPolicy:
    """Checks SPF (RFC 7208), and for domains that want it acts on the result.

    :param check: takes client address, HELO name and MAIL FROM.
    :param receiver: name of this host, for the header.
    :param due: whether a copy is to be compared with the book: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: how often the book's copy in the state was looked for.
    :ivar misses: how often it was not there.
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
    ) -> None:
        self._settings = settings.spf
        self._actions = actions(settings.spf_actions)
        self._state = state
        self._book = book
        self._check = check
        self._receiver = receiver
        self._due = due
        self.looks = self.misses = 0

    def decide(self, request: PolicyRequest, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Check the sender of a message to one recipient.

        A header is answered for each recipient; :func:`~chapps_tw.policies.one_header.one_header` sees to it that
        the message has one.

        :raises StateUnavailable, BookUnavailable: when they cannot be asked.
        """
        return self._judge(request, keep=True)

    def explain(self, request: PolicyRequest, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """What :meth:`decide` would answer, keeping nothing. Raises the same."""
        return self._judge(request, keep=False)

    async def _judge(self, request: PolicyRequest, keep: bool) -> Decision:
        get = request.attributes.get
        recipient, stage = get("recipient", ""), get("protocol_state", "")
        if not recipient or stage not in STAGES:
            return Decision(_PASS_ON, Reason.STAGE_NOT_JUDGED, self.name)
        identities = Identities(get("client_address", ""), get("helo_name", ""), get("sender", ""))
        if self._settings.null_sender_ok and not identities.sender:
            return Decision(_PASS_ON, Reason.NULL_SENDER_ACCEPTED, self.name)
        domain, enforced, source = domain_of(recipient), False, "dns"
        if domain:
            if keep and self._due(domain):
                await self._compare(domain)
            self.looks += 1
            [cached] = await self._state.verdicts(SPACE, domain, (FLAG,))
            if cached.allowed is None:
                enforced, source = await self._look_up(domain, cached.token, keep), f"{DATABASE} dns"
            else:
                enforced, source = cached.allowed, f"{CACHE} dns"
        found = await self._check(*identities)
        return self._decision(found, identities, stage, enforced, source)

    async def _compare(self, domain: str) -> None:
        """Drop the copy of a domain's flag where the book says something else by now; it goes on without the book."""
        [cached] = await self._state.verdicts(SPACE, domain, (FLAG,))
        if cached.allowed is None:
            return
        with suppress(BookUnavailable):
            if (await self._book.flags_of(domain)).check_spf is not cached.allowed:
                await self._state.drop_verdicts(SPACE, domain, (FLAG,))

    async def _look_up(self, domain: str, token: str, keep: bool) -> bool:
        """Ask the book, and keep what it says for the next time."""
        self.misses += 1
        flags = await self._book.flags_of(domain)
        if keep:
            verdict = (FLAG, flags.check_spf, token)
            await self._state.keep_verdicts(SPACE, domain, (verdict,), self._settings.cache_ttl)
        return flags.check_spf

    def _decision(self, found: SpfResult, identities: Identities, stage: str, enforced: bool, source: str) -> Decision:
        wanted = self._actions[found.result] if enforced else "prepend"
        greylist = wanted == "greylist"
        if greylist or wanted == "prepend":
            action = self._header(found, identities, stage)
        elif wanted in ("dunno", "okay"):
            # OK would let the mail past reject_unauth_destination, where that comes later.
            action = _PASS_ON
        else:
            action = fill(wanted, {"reason": reason(found, identities.client)})
        return Decision(
            action,
            _REASONS[found.result],
            self.name,
            detail=_detail(found),
            greylist=greylist,
            # Each host of a pool has a HELO name of its own: only MAIL FROM names a client that several may be.
            client=found.domain if found.result == "pass" and found.identity == "mailfrom" else "",
            source=source,
        )

    def _header(self, found: SpfResult, identities: Identities, stage: str) -> str:
        # Postfix takes no header at the end of the message.
        if stage == "END-OF-MESSAGE":
            return _PASS_ON
        return "PREPEND " + received_spf(found, *identities, self._receiver)


def reason(found: SpfResult, client: str) -> str:
    """Why, for the sender: what the domain's owner says about it, else in our words."""
    domain = found.domain or "the sender"
    if found.explanation:
        return f"{domain} explains: {found.explanation}"
    if found.result in ("temperror", "permerror"):
        return f"{domain}: {found.problem}" if found.problem else domain
    return f"{domain} says {found.result} for {client or 'this client'}"


def _detail(found: SpfResult) -> str:
    """What was found, for the log: with the name servers, which are no sender's business."""
    said = [found.identity, found.domain, found.mechanism or found.problem, found.asked and f"({found.asked})"]
    return " ".join([each for each in said if each])


def actions(options: PostfixSPFActions) -> Mapping[str, str]:
    """The configured action for each result of RFC 7208, section 2.6."""
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
    make=lambda use: SPFEnforcementPolicy(use.settings, use.state, use.book, use.check_spf, use.receiver, use.due),
    extra_time=lambda settings: settings.spf.spf_query_timeout,
    cache="spf_flags",
)
