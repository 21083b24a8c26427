"""Greylisting (RFC 6647): has this client retried this message?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from math import ceil
from typing import NamedTuple, TypeAlias

from chapps_tw.config.settings import GreylistingPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import BookUnavailable, Exemption, PolicyBook
from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import LiveState, Outdated
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill, in_words
from chapps_tw.mail.memo import Memoized
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies import exemptions
from chapps_tw.policies.exemptions import Exempt, nobody
from chapps_tw.policies.inbound import cached_client_network, domain_of, mail_address
from chapps_tw.policies.pending import Asked, Decided, decided
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec
from chapps_tw.policies.stages import of_recipient

# At DATA and END-OF-MESSAGE, a request has a recipient only if exactly one was accepted (SMTPD_POLICY_README).
STAGES = frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))

# Size of the cache of recipients, in bytes.
_CACHE_BYTES = 8 << 20

_REASONS = {
    Outcome.NOT_GREYLISTED: Reason.NOT_GREYLISTED,
    Outcome.FIRST: Reason.GREYLIST_FIRST,
    Outcome.EARLY: Reason.GREYLIST_EARLY,
    Outcome.PASSED: Reason.GREYLIST_PASSED,
    Outcome.KNOWN_CLIENT: Reason.KNOWN_CLIENT,
}


class Recipient(NamedTuple):
    """A parsed recipient.

    :ivar address: its normal form, which is compared and stored.
    :ivar domain: the domain whose flag applies, ``""`` if there is none.
    :ivar exempt: whether ``exempt_recipients`` contains it.
    """

    address: str
    domain: str
    exempt: bool


Asking: TypeAlias = Decision | Asked | Awaitable[Decided]


class _Check(NamedTuple):
    """What is asked of the live state, and what the decision needs then.

    :ivar detail: for the log.
    :ivar keep: false to change nothing.
    """

    request: OutboundPPR
    attempt: GreylistAttempt
    detail: str
    keep: bool


class GreylistingPolicy:
    """Defers the first delivery attempt of a client, sender and recipient; a later retry passes (RFC 6647).

    :param due: whether to compare a cached flag with the book now: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: lookups of flags.
    :ivar misses: flags that were not cached.
    """

    name = "GreylistingPolicy"

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: PolicyBook,
        due: Callable[[Hashable], bool] = never,
        exempt: Exempt = nobody,
    ) -> None:
        self._state = state
        self._book = book
        self._due = due
        self.looks = self.misses = 0
        self._exempt = exempt
        self._settings = settings.grl
        self._greylist_rules = rules(settings)
        read = partial(_read_recipient, exempt=settings.grl.exempt_recipients)
        self._recipient = Memoized(read, _CACHE_BYTES).__getitem__
        self._accepting, self._deferring = _text(settings.grl.acceptance_message), _text(settings.grl.rejection_message)
        self._network_of = cached_client_network(settings.grl.ipv4_prefix, settings.grl.ipv6_prefix)

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Asking:
        """Decide about a message to one recipient.

        :param earlier: decisions of earlier policies. If one requests greylisting, the domain's flag is ignored.
            A ``client`` of one is another name of the client.
        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        :raises Outdated: if the request relies on values that are outdated.
        """
        return self._unless_exempt(request, earlier, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Asking:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._unless_exempt(request, earlier, keep=False)

    def _unless_exempt(self, request: OutboundPPR, earlier: Sequence[Decision], keep: bool) -> Asking:
        if not request.get("recipient") or request.get("protocol_state") not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        exempted = self._exempt(request, exemptions.GREYLISTING, keep)
        if exempted is not exemptions.NOBODY:
            return self._after(exempted, request, earlier, keep)
        return self._judge(request, earlier, keep)

    async def _after(
        self, exempted: Awaitable[Exemption | None], request: OutboundPPR, earlier: Sequence[Decision], keep: bool
    ) -> Decided:
        exemption = await exempted
        if exemption is not None:
            action, detail = self._accepting(request, 0), exemptions.detail_of(exemption)
            return Decision(action, Reason.EXEMPTED, self.name, detail=detail)
        return await decided(self._judge(request, earlier, keep))

    def _judge(self, request: OutboundPPR, earlier: Sequence[Decision], keep: bool) -> Asking:
        if self._settings.null_sender_ok and not request.get("sender"):
            return Decision(self._accepting(request, 0), Reason.NULL_SENDER_ACCEPTED, self.name)
        recipient = self._recipient(request.get("recipient"))
        if recipient.exempt:
            return Decision(self._accepting(request, 0), Reason.RECIPIENT_EXEMPT, self.name)
        attempt, detail = self._attempt(request, recipient, earlier)
        if not attempt.domain and not attempt.forced:
            return Decision(self._accepting(request, 0), Reason.NOT_GREYLISTED, self.name)
        check = _Check(request, attempt, detail, keep)
        if keep and not attempt.forced and self._due(attempt.domain):
            return self._compare(check)
        return self._ask(check)

    def _ask(self, check: _Check, fill: Fill | None = None) -> Asked:
        self.looks += fill is None
        request, attempt, _, keep = check
        if keep:
            reply = self._state.check_greylist(attempt, self._greylist_rules, fill, request.version)
        else:
            reply = self._state.peek_greylist(attempt, self._greylist_rules, fill)
        return Asked(reply, partial(self._conclude, check, CACHE if fill is None else DATABASE))

    def _conclude(self, check: _Check, source: str, result: GreylistResult) -> Decision | Awaitable[Decided]:
        if result.outcome is Outcome.MISSING:
            return self._look_up(check, result.token)
        if result.outcome is Outcome.OUTDATED:
            raise Outdated
        check.request.rely_on_nothing()
        return self._decision(result, check.detail, check.request, "" if check.attempt.forced else source)

    async def _look_up(self, check: _Check, token: str) -> Decided:
        """Read the flag of the domain from the book, and decide."""
        self.misses += 1
        flags = await self._book.flags_of(check.attempt.domain)
        return await decided(self._ask(check, Fill(token, int(flags.greylist), self._settings.flag_ttl)))

    def _attempt(
        self, request: OutboundPPR, recipient: Recipient, earlier: Sequence[Decision]
    ) -> tuple[GreylistAttempt, str]:
        """Return the delivery attempt, and for the log the client's name and the policy that requests greylisting."""
        client, spf_domain, named_by, requester = self._network_of(request.get("client_address")), "", "", None
        for decision in earlier:
            if requester is None and decision.greylist:
                requester = decision
            if not spf_domain and decision.client and self._settings.spf_identity:
                spf_domain, named_by = decision.client, f", by {decision.policy}"
        detail = f"client {spf_domain or client}{named_by}"
        if requester is not None:
            why = f"{requester.reason}: {requester.detail}" if requester.detail else requester.reason
            detail = f"{detail}; asked for by {requester.policy} ({why})"
        attempt = GreylistAttempt(
            client,
            mail_address(request.get("sender")),
            recipient.address,
            recipient.domain,
            request.get("instance"),
            requester is not None,
            spf_domain,
        )
        return attempt, detail

    async def _compare(self, check: _Check) -> Decided:
        """Delete a cached flag that differs from the book, and decide. If the book is unavailable, the flag stays."""
        domain = check.attempt.domain
        result = await self._state.peek_greylist(check.attempt, self._greylist_rules)
        if result.outcome is not Outcome.MISSING:
            with suppress(BookUnavailable):
                flags = await self._book.flags_of(domain)
                if flags.greylist is (result.outcome is Outcome.NOT_GREYLISTED):
                    await self._state.drop_flags([domain])
        return await decided(self._ask(check))

    def _decision(self, result: GreylistResult, detail: str, request: OutboundPPR, source: str) -> Decision:
        wait = ceil(result.wait)
        figures = {"wait": wait, "tally": result.tally, "threshold": self._settings.whitelist_threshold}
        if result.outcome is Outcome.FIRST or result.outcome is Outcome.EARLY:
            action = self._deferring(request, wait)
        else:
            action = self._accepting(request, 0)
        if result.outcome is Outcome.NOT_GREYLISTED:
            detail = ""
        return Decision(action, _REASONS[result.outcome], self.name, figures, detail, False, "", "", source)


def _read_recipient(text: str, exempt: frozenset[str]) -> Recipient:
    address = mail_address(text)
    # "postmaster" without a domain is valid (RFC 5321, section 4.5.1).
    is_exempt = f"{address.rpartition('@')[0] or address}@" in exempt or address in exempt
    return Recipient(address, domain_of(text), is_exempt)


Text = Callable[[OutboundPPR, int], str]


def _text(template: str) -> Text:
    """Return a function that fills in a template, given a request and the seconds to wait."""
    if "{sender}" not in template and "{recipient}" not in template:
        # Waits are whole seconds, so there are few different texts.
        by_wait = lru_cache(1024)(lambda wait: fill(template, _wait(wait)))
        return lambda _, wait: by_wait(wait)
    return lambda request, wait: fill(
        template, _wait(wait) | {"sender": request.get("sender"), "recipient": request.get("recipient")}
    )


def _wait(seconds: int) -> dict[str, object]:
    return {"retry_after": seconds, "retry_in": in_words(seconds)}


def rules(settings: Settings) -> GreylistRules:
    """Return the greylisting rules of the settings."""
    grl = settings.grl
    return GreylistRules(grl.minimum_deferral, grl.retry_window, grl.pass_ttl, grl.tally_ttl, grl.whitelist_threshold)


SPEC = PolicySpec(
    section=Section,
    direction=Direction.INBOUND,
    make=lambda use: GreylistingPolicy(use.settings, use.state, use.book, use.due, use.exempt),
    needs=lambda _: [of_recipient(Section.section)],
    cache="greylist_flags",
)
