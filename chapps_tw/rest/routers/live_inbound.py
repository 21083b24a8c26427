"""The live state of inbound mail: greylist entries, tallies, and the cached flags of recipient domains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.value_keys import check_spf
from chapps_tw.mail.network import client_address
from chapps_tw.policies.greylisting import rules
from chapps_tw.policies.inbound import client_network, domain_of, mail_address
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import live as m
from chapps_tw.rest.moments import iso
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.security.tokens import Scope

_TUPLE_NOTE = (
    "If SPF passed, the sender's domain also identifies the client, unless `spf_identity` is off. If `client_address` "
    "is an address, the entry for that domain is looked up too, and the newer of the two is returned."
)
_TALLY_NOTE = (
    "If SPF passed, messages count for the sender's domain, unless `spf_identity` is off. The `detail` of greylisting "
    "decisions, in `/live/decisions/` and in the log, shows which client identity was used."
)


class LiveInbound:
    """Routes for greylist entries and tallies, and for the cached flags of recipient domains."""

    def __init__(self, settings: Settings, state: LiveState) -> None:
        self._grl = settings.grl
        self._rules = rules(settings)
        self._state = state

    def routes(self) -> Iterator[Route[Any]]:
        tally = "/live/grl/tally/{client_address}"
        yield Route(
            "GET", "/live/grl/tuple/", "Show when a greylist entry was last used", self.tuple, m.Tuple, a.Moment,
            body="*", tag="live", note=_TUPLE_NOTE,
        )  # fmt: skip
        yield Route(
            "POST", "/live/grl/tuple/", "Let a greylisted message pass at its next attempt", self.let_pass, m.Tuple,
            a.Said, body="*", query=False, scope=Scope.OPERATOR, tag="live",
            note="The client, sender and recipient are known from then on, as after a retry.",
        )  # fmt: skip
        yield Route(
            "GET", tally, "Show the tally of a client", self.tally, m.TallyOf, a.TallyList, query=False, tag="live",
            note=_TALLY_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", tally, "Clear the tally of a client", self.clear_tally, m.TallyOf, a.Said, query=False,
            scope=Scope.OPERATOR, tag="live", note=_TALLY_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/grl/option_cache/{domain}", "Clear a domain's cached greylisting flag",
            self.drop_greylist, m.DomainOnly, a.Said, query=False, scope=Scope.OPERATOR, tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/spf/option_cache/{domain}", "Clear a domain's cached SPF flag", self.drop_spf,
            m.DomainOnly, a.Said, query=False, scope=Scope.OPERATOR, tag="live",
        )  # fmt: skip

    async def tuple(self, which: m.Tuple) -> Reply:
        clients = [self._client(which.client_address)]
        domain = domain_of(which.sender)
        if self._by_domain(which.client_address) and domain:
            clients.append(domain)
        sender, recipient = mail_address(which.sender), mail_address(which.recipient)
        last = {client: await self._state.last_attempt(client, sender, recipient) for client in clients}
        newest = max(clients, key=lambda client: last[client])
        found = f"The greylist entry is for {newest}."
        remark = found if last[newest] else f"No greylist entry for {' or '.join(clients)}."
        return Reply(last[newest], {"response_iso": iso(last[newest])}, [remark])

    async def let_pass(self, which: m.Tuple) -> Reply:
        client = self._client(which.client_address)
        names = client, mail_address(which.sender), mail_address(which.recipient)
        await self._state.pass_greylist(*names, self._rules)
        return Reply("passes", remarks=[f"The greylist entry is for {client}."])

    async def tally(self, which: m.TallyOf) -> Reply:
        counted = await self._state.tally(self._client(which.client_address))
        beside = {"response_iso": [(instance, iso(time)) for instance, time in counted]}
        return Reply(counted, beside, [] if counted else [self._no_tally(which.client_address)])

    async def clear_tally(self, which: m.TallyOf) -> Reply:
        client = self._client(which.client_address)
        counted = await self._state.tally(client)
        await self._state.clear_tally(client)
        return Reply("deleted", remarks=[] if counted else [self._no_tally(which.client_address)])

    async def drop_greylist(self, which: m.DomainOnly) -> Reply:
        await self._state.drop_flags([which.domain])
        return Reply("deleted")

    async def drop_spf(self, which: m.DomainOnly) -> Reply:
        await self._state.drop_values([check_spf(which.domain)])
        return Reply("deleted")

    def _by_domain(self, text: str) -> bool:
        """Return whether a client given by address may be recorded under a domain instead."""
        return self._grl.spf_identity and client_address(text) is not None

    def _no_tally(self, text: str) -> str:
        """Return a remark that a client has no tally, and what else to request."""
        remark = f"No tally for {self._client(text)}."
        if self._by_domain(text):
            return f"{remark} If SPF passed, the messages count for the sender's domain: request that."
        if client_address(text) is None:
            return f"{remark} If SPF did not pass, the messages count for the client's network: request its address."
        return remark

    def _client(self, text: str) -> str:
        """Return the client identity: the network, or the domain for which SPF passed."""
        if client_address(text) is None:
            return text
        return client_network(text, self._grl.ipv4_prefix, self._grl.ipv6_prefix)
