"""Greylisting: has this client come back with this message?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from math import ceil
from typing import Any

from chapps_tw.config.settings import GreylistingPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import BookUnavailable, PolicyBook
from chapps_tw.interfaces.state import Fill, LiveState, Meeting, Met, Outcome, Patience
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill, in_words
from chapps_tw.mail.memo import Answers
from chapps_tw.mail.request import PostfixPolicyRequest
from chapps_tw.policies.inbound import client_network, domain_of, mail_address
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec

# At the later two there is a recipient only when exactly one was accepted (SMTPD_POLICY_README).
STAGES = frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))

# Bytes for the recipients that came before.
_ROOM = 4 << 20

_REASONS = {
    Outcome.NOT_GREYLISTED: Reason.NOT_GREYLISTED,
    Outcome.FIRST: Reason.GREYLIST_FIRST,
    Outcome.EARLY: Reason.GREYLIST_EARLY,
    Outcome.PASSED: Reason.GREYLIST_PASSED,
    Outcome.KNOWN_CLIENT: Reason.KNOWN_CLIENT,
}


class GreylistingPolicy:
    """Defers what it has not met before; who comes back after a while passes (RFC 6647).

    :param due: whether a copy is to be compared with the book: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: how often the book's copy in the state was looked for.
    :ivar misses: how often it was not there.
    """

    name = "GreylistingPolicy"

    def __init__(
        self, settings: Settings, state: LiveState, book: PolicyBook, due: Callable[[Hashable], bool] = never
    ) -> None:
        self._settings = settings.grl
        self._patience = patience(settings)
        self._state = state
        self._book = book
        self._due = due
        self._is_exempt = Answers(self._names_exempt, _ROOM).__getitem__
        self.looks = self.misses = 0

    def decide(self, request: PostfixPolicyRequest, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Meet a message to one recipient.

        :param earlier: where one of them asks for greylisting, the domain's flag does not matter;
            a domain that one names is another name of the client.
        :raises StateUnavailable, BookUnavailable: when they cannot be asked.
        """
        return self._judge(request, earlier, self._state.meet, self._due)

    def explain(self, request: PostfixPolicyRequest, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """What :meth:`decide` would answer, remembering nothing. Raises the same."""
        return self._judge(request, earlier, self._state.peek_meet, never)

    async def _judge(
        self,
        request: PostfixPolicyRequest,
        earlier: Sequence[Decision],
        ask: Callable[..., Awaitable[Met]],
        due: Callable[[Hashable], bool],
    ) -> Decision:
        if not request.get("recipient") or request.get("protocol_state") not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        if self._settings.null_sender_ok and not request.get("sender"):
            return Decision(self._accepting(request), Reason.NULL_SENDER_ACCEPTED, self.name)
        if self._is_exempt(request.get("recipient")):
            return Decision(self._accepting(request), Reason.RECIPIENT_EXEMPT, self.name)
        meeting, detail = self._meeting(request, earlier)
        if not meeting.domain and not meeting.forced:
            return Decision(self._accepting(request), Reason.NOT_GREYLISTED, self.name)
        if not meeting.forced and due(meeting.domain):
            await self._compare(meeting)
        self.looks += 1
        source = CACHE
        met = await ask(meeting, self._patience)
        if met.outcome is Outcome.MISSING:
            source = DATABASE
            met = await ask(meeting, self._patience, await self._look_up(meeting.domain, met.token))
        return self._decision(met, detail, request, "" if meeting.forced else source)

    def _names_exempt(self, recipient: str) -> bool:
        exempt, address = self._settings.exempt_recipients, mail_address(recipient)
        # Postmaster needs no domain (RFC 5321, section 4.5.1).
        return f"{address.rpartition('@')[0] or address}@" in exempt or address in exempt

    def _meeting(self, request: PostfixPolicyRequest, earlier: Sequence[Decision]) -> tuple[Meeting, str]:
        """What is met; and in words under which name, and who asked for it."""
        prefixes = self._settings.ipv4_prefix, self._settings.ipv6_prefix
        client, spf_domain, named_by, asks = client_network(request.get("client_address"), *prefixes), "", "", None
        for decision in earlier:
            if asks is None and decision.greylist:
                asks = decision
            if not spf_domain and decision.client and self._settings.spf_identity:
                spf_domain, named_by = decision.client, f", by {decision.policy}"
        detail = f"client {spf_domain or client}{named_by}"
        if asks is not None:
            why = f"{asks.reason}: {asks.detail}" if asks.detail else asks.reason
            detail = f"{detail}; asked for by {asks.policy} ({why})"
        recipient = request.get("recipient")
        meeting = Meeting(
            client,
            mail_address(request.get("sender")),
            mail_address(recipient),
            domain_of(recipient),
            request.get("instance"),
            asks is not None,
            spf_domain,
        )
        return meeting, detail

    async def _compare(self, meeting: Meeting) -> None:
        """Drop the copy of a domain's flag where the book says something else by now; it goes on without the book."""
        met = await self._state.peek_meet(meeting, self._patience)
        if met.outcome is Outcome.MISSING:
            return
        with suppress(BookUnavailable):
            flags = await self._book.flags_of(meeting.domain)
            if flags.greylist is (met.outcome is Outcome.NOT_GREYLISTED):
                await self._state.drop_flags([meeting.domain])

    async def _look_up(self, domain: str, token: str) -> Fill:
        self.misses += 1
        flags = await self._book.flags_of(domain)
        return Fill(token, int(flags.greylist), self._settings.flag_ttl)

    def _accepting(self, request: PostfixPolicyRequest) -> str:
        text = self._settings.acceptance_message
        return fill(text, _shown(request, 0)) if "{" in text else text

    def _decision(self, met: Met, detail: str, request: PostfixPolicyRequest, source: str) -> Decision:
        wait = ceil(met.wait)
        figures = {"wait": wait, "tally": met.tally, "threshold": self._settings.whitelist_threshold}
        if met.outcome is Outcome.FIRST or met.outcome is Outcome.EARLY:
            action = fill(self._settings.rejection_message, _shown(request, wait))
        else:
            action = self._accepting(request)
        if met.outcome is Outcome.NOT_GREYLISTED:
            detail = ""
        return Decision(action, _REASONS[met.outcome], self.name, figures, detail, False, "", "", source)


def _shown(request: PostfixPolicyRequest, wait: int) -> dict[str, object]:
    return {
        "retry_after": wait,
        "retry_in": in_words(wait),
        "sender": request.get("sender"),
        "recipient": request.get("recipient"),
    }


def patience(settings: Settings) -> Patience:
    """How greylisting waits, by the settings."""
    grl = settings.grl
    return Patience(grl.minimum_deferral, grl.retry_window, grl.pass_ttl, grl.tally_ttl, grl.whitelist_threshold)


SPEC = PolicySpec(
    section=Section,
    direction=Direction.INBOUND,
    make=lambda use: GreylistingPolicy(use.settings, use.state, use.book, use.due),
    cache="greylist_flags",
)
