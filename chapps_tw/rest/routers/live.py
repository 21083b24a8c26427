"""Live state: what is left of a quota, and what is cached about senders, tuples and domains."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Entry, WritableBook
from chapps_tw.interfaces.state import NO_QUOTA, LiveState, Usage
from chapps_tw.mail.addresses import normal_domain, normal_email, normal_name, without_extension
from chapps_tw.mail.network import client_address
from chapps_tw.policies.inbound import client_network, domain_of, mail_address
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import live as m
from chapps_tw.rest.models.book import UserIds
from chapps_tw.rest.routers.kinds import missing, unknown_ids
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.rest.slices import Slices

SDA = "sda"
SPF, SPF_FLAG = "spf", "check_spf"
# Names that the state is asked about in one operation, and users at a time.
NAMES, AT_ONCE = 100, 16

_TUPLE_NOTE = (
    "Where SPF passed, the sender's domain is another name of the client, unless `spf_identity` is off: with an "
    "address, that domain is looked for as well, and the newest of both is told."
)
_TALLY_NOTE = (
    "Where SPF passed, messages count for the sender's domain, unless `spf_identity` is off. The "
    "`detail` of greylisting's decisions tells which it was, in `/live/decisions/` and in the log."
)

_STATUS = {True: "AUTHORIZED", False: "PROHIBITED", None: "NOT CACHED"}


def _status(allowed: Sequence[bool | None]) -> str:
    """What verdicts about an address, and about the one that it is a sub-address of, come to."""
    return _STATUS[True if True in allowed else None if None in allowed else False]


def routes(settings: Settings, state: LiveState, book: WritableBook, slices: Slices) -> Iterator[Route[Any]]:
    """All routes of this family. ``slices`` is for what is asked about many."""
    yield from _Quotas(settings, state, book, slices).routes()
    yield from _Senders(settings, state, book, slices).routes()
    yield from _Inbound(settings, state).routes()


class _Quotas:
    """What is left of quotas. The limit is the book's, what was used is the state's."""

    def __init__(self, settings: Settings, state: LiveState, book: WritableBook, slices: Slices) -> None:
        self._slices = slices
        self._interval = settings.oqp.interval
        self._fold_case = settings.chapps.fold_case
        self._state = state
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        path = "/live/quota/{user_id}"
        yield Route(
            "GET", "/live/quota/", "What several users may send now", self.several, UserIds, a.AvailableList,
            body="user_ids", tag="live",
        )  # fmt: skip
        for method, summary, handler, changes in (
            ("GET", "What a user may send now", self.left, False),
            ("DELETE", "Forget what a user sent", self.reset, True),
            ("POST", "Read a user's limit again", self.refresh, True),
        ):
            yield Route(
                method, path, summary, handler, m.Who, a.Count, body="name", errors=(400, 404), changes=changes,
                tag="live",
            )  # fmt: skip

    async def several(self, which: UserIds) -> Reply:
        users = await self._book.by_ids("users", which.user_ids)
        quotas = await self._book.links("users", [user.id for user in users], "quotas")
        names = list(map(self._key, users))
        usages = await self._slices.in_parts(names, NAMES, lambda part: self._state.usage(part, self._interval))
        remarks = unknown_ids("users", which.user_ids, users)
        rows = []
        for user, usage in zip(users, usages, strict=True):
            quota = _only(quotas.get(user.id, []))
            if quota is None:
                remarks.append(f"User {user.name} has no quota.")
            await self._bring_up_to_date(user, quota, usage)
            rows.append({"user_name": user.name, "quota_avail": _available(quota, usage)})
        return Reply(rows, remarks=remarks)

    async def left(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        quota, usage = await self._quota_and_usage(user)
        return Reply(_available(quota, usage), remarks=remarks + _about(user, quota, usage))

    async def reset(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        dropped = await self._state.reset_usage(self._key(user), self._interval)
        if not dropped:
            remarks.append(f"Nothing was counted for user {user.name}.")
        return Reply(dropped, remarks=remarks)

    async def refresh(self, who: m.Who) -> Reply:
        user, remarks = await self._find(who)
        # Dropped first: what is counted here is seen by the next request with the limit that is told.
        await self._state.drop_limits([self._key(user)])
        quota, usage = await self._quota_and_usage(user)
        if quota is None:
            raise Refusal(404, f"User {user.name} has no quota.")
        return Reply(
            _available(quota, usage), remarks=[*remarks, f"The limit is {_limit(quota)}, by quota {quota.name}."]
        )

    async def _quota_and_usage(self, user: Entry) -> tuple[Entry | None, Usage]:
        quotas = await self._book.links("users", [user.id], "quotas")
        [usage] = await self._state.usage([self._key(user)], self._interval)
        quota = _only(quotas.get(user.id, []))
        await self._bring_up_to_date(user, quota, usage)
        return quota, usage

    async def _bring_up_to_date(self, user: Entry, quota: Entry | None, usage: Usage) -> None:
        """Have the next question read the limit that is told here, where the database was changed by hand."""
        if usage.limit not in (None, _limit(quota) if quota else NO_QUOTA):
            await self._state.drop_limits([self._key(user)])

    async def _in_place_of(self, user: Entry) -> list[str]:
        """A remark about a user whose name is another's but for its spelling, and not used."""
        if user.name == self._key(user):
            return []
        used = await self._book.by_name("users", user.name)
        if used is None or used.id == user.id:
            return []
        return [f"User {user.name} is not used: whoever logs in by that name is user {used.name}, id {used.id}."]

    def _key(self, user: Entry) -> str:
        """A user's name in the state."""
        return normal_name(user.name, self._fold_case)

    async def _find(self, who: m.Who) -> tuple[Entry, list[str]]:
        """A user by id or by name, with remarks."""
        if not who.user_id and who.name is None:
            raise Refusal(400, "Neither a user's id nor a name was given.")
        if who.user_id:
            found = await self._book.by_ids("users", [who.user_id])
            if found:
                return found[0], await self._in_place_of(found[0])
            if who.name is None:
                raise missing("users", who.user_id)
        user = await self._book.by_name("users", who.name or "")
        if user is None:
            by_id = f"id {who.user_id} or " if who.user_id else ""
            raise Refusal(404, f"There is no user with {by_id}name {who.name}.")
        remark = f"There is no user with id {who.user_id}; the name {who.name} was used."
        return user, [remark] if who.user_id else []


def _only(entries: Sequence[Entry]) -> Entry | None:
    return entries[0] if entries else None


def _limit(quota: Entry) -> int:
    """What a quota lets through. A negative number, where somebody wrote one into the table, is 0."""
    return max(0, quota.quota)


def _available(quota: Entry | None, usage: Usage) -> int:
    return max(0, quota.quota - usage.used) if quota else 0


def _about(user: Entry, quota: Entry | None, usage: Usage) -> list[str]:
    remarks = []
    if usage.last:
        when = datetime.fromtimestamp(usage.last, UTC).isoformat(timespec="seconds")
        remarks.append(f"The last attempt was at {when}.")
    else:
        remarks.append(f"Nothing was counted for user {user.name}.")
    if quota is None:
        remarks.append(f"User {user.name} has no quota.")
    if usage.limit is None:
        remarks.append(f"There is no cached limit for user {user.name}.")
    elif quota is not None and usage.limit != _limit(quota):
        remarks.append(f"The cached limit was {max(0, usage.limit)}, the quota is {_limit(quota)}: it counts now.")
    return remarks


class _Senders:
    """Cached verdicts of sender domain authorization."""

    def __init__(self, settings: Settings, state: LiveState, book: WritableBook, slices: Slices) -> None:
        self._slices = slices
        self._fold_case = settings.chapps.fold_case
        self._separators = settings.sda.subaddress_separators
        self._state = state
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        one = "/live/sda/{source}/for/{user}"
        yield Route(
            "GET", "/live/sda/", "What is cached about several users and senders", self.peek_all, m.Authorizations,
            a.StatusMap, body="*", errors=(400,), tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/sda/", "Clear what is cached about several users and senders", self.clear_all,
            m.Authorizations, a.Said, body="*", errors=(400,), changes=True, tag="live",
        )  # fmt: skip
        yield Route(
            "GET", one, "What is cached about a user and a sender", self.peek, m.Authorization, a.Status, query=False,
            tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", one, "Clear what is cached about a user and a sender", self.clear, m.Authorization, a.Status,
            query=False, changes=True, tag="live",
        )  # fmt: skip

    async def peek(self, which: m.Authorization) -> Reply:
        verdicts = await self._state.verdicts(SDA, self._user(which.user), self._names(which.source))
        return Reply(_status([verdict.allowed for verdict in verdicts]))

    async def clear(self, which: m.Authorization) -> Reply:
        before = await self._state.drop_verdicts(SDA, self._user(which.user), self._names(which.source))
        return Reply(_status(before))

    def _user(self, name: str) -> str:
        return normal_name(name, self._fold_case)

    def _names(self, source: str) -> list[str]:
        """What is cached about a domain or an address: of a sub-address, what it belongs to as well."""
        name = self._email(source) if "@" in source else source
        base = without_extension(name, self._separators)
        return [name, base] if base else [name]

    def _email(self, text: str) -> str:
        return normal_email(text, self._fold_case) or text

    async def peek_all(self, which: m.Authorizations) -> Reply:
        async def ask(user: str, names: Sequence[str]) -> list[bool | None]:
            return [verdict.allowed for verdict in await self._state.verdicts(SDA, user, names)]

        users, sources, remarks, found = await self._each(which, ask)
        by_source = (
            (source, {user: _STATUS[row[place]] for user, row in zip(users, found, strict=True)})
            for place, source in enumerate(sources)
        )
        return Reply(dict(await self._slices.collect(by_source)), remarks=remarks)

    async def clear_all(self, which: m.Authorizations) -> Reply:
        async def ask(user: str, names: Sequence[str]) -> list[bool | None]:
            return await self._state.drop_verdicts(SDA, user, names)

        users, sources, remarks, found = await self._each(which, ask)
        had = sum(before is not None for row in found for before in row)
        return Reply(f"cleared {had} of {len(users) * len(sources)}", remarks=remarks)

    async def _each(
        self, which: m.Authorizations, ask: Callable[[str, Sequence[str]], Awaitable[list[bool | None]]]
    ) -> tuple[list[str], list[str], list[str], list[list[bool | None]]]:
        """Names of users, names of sources, remarks, and the answers: a list for each user."""
        if not which.domain_ids and not which.email_ids:
            raise Refusal(400, "Neither domain_ids nor email_ids were given.")
        users = await self._book.by_ids("users", which.user_ids)
        domains = await self._book.by_ids("domains", which.domain_ids) if which.domain_ids else []
        emails = await self._book.by_ids("emails", which.email_ids) if which.email_ids else []
        remarks = (
            unknown_ids("users", which.user_ids, users)
            + unknown_ids("domains", which.domain_ids, domains)
            + unknown_ids("emails", which.email_ids, emails)
        )
        sources = [entry.name for entry in (*domains, *emails)]
        keys = [normal_domain(entry.name) or entry.name for entry in domains]
        keys += [self._email(entry.name) for entry in emails]
        names = [user.name for user in users]

        async def about(user: str) -> list[bool | None]:
            return await self._slices.in_parts(keys, NAMES, partial(ask, self._user(user)))

        found = await self._slices.each(names, about, AT_ONCE)
        return names, sources, remarks, found


class _Inbound:
    """Greylisting's tuples and tallies, and the cached flags of recipient domains."""

    def __init__(self, settings: Settings, state: LiveState) -> None:
        self._grl = settings.grl
        self._state = state

    def routes(self) -> Iterator[Route[Any]]:
        tally = "/live/grl/tally/{client_address}"
        yield Route(
            "GET", "/live/grl/tuple/", "When greylisting last met a tuple", self.tuple, m.Tuple, a.Moment, body="*",
            tag="live", note=_TUPLE_NOTE,
        )  # fmt: skip
        yield Route(
            "GET", tally, "What counts for a client", self.tally, m.TallyOf, a.TallyList, query=False, tag="live",
            note=_TALLY_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", tally, "Forget what counts for a client", self.clear_tally, m.TallyOf, a.Said, query=False,
            changes=True, tag="live", note=_TALLY_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/grl/option_cache/{domain}", "Forget a domain's cached greylisting flag",
            self.drop_greylist, m.DomainOnly, a.Said, query=False, changes=True, tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/spf/option_cache/{domain}", "Forget a domain's cached SPF flag", self.drop_spf,
            m.DomainOnly, a.Said, query=False, changes=True, tag="live",
        )  # fmt: skip

    async def tuple(self, which: m.Tuple) -> Reply:
        names = [self._client(which.client_address)]
        domain = domain_of(which.sender)
        if self._by_domain(which.client_address) and domain:
            names.append(domain)
        sender, recipient = mail_address(which.sender), mail_address(which.recipient)
        met = {name: await self._state.last_met(name, sender, recipient) for name in names}
        newest = max(names, key=lambda name: met[name])
        if met[newest]:
            return Reply(met[newest], remarks=[f"It was met as from {newest}."])
        return Reply(0.0, remarks=[f"It was not met as from {' or '.join(names)}."])

    async def tally(self, which: m.TallyOf) -> Reply:
        counted = await self._state.tally(self._client(which.client_address))
        return Reply(counted, remarks=[] if counted else [self._nothing(which.client_address)])

    async def clear_tally(self, which: m.TallyOf) -> Reply:
        client = self._client(which.client_address)
        counted = await self._state.tally(client)
        await self._state.clear_tally(client)
        return Reply("deleted", remarks=[] if counted else [self._nothing(which.client_address)])

    async def drop_greylist(self, which: m.DomainOnly) -> Reply:
        await self._state.drop_flags([which.domain])
        return Reply("deleted")

    async def drop_spf(self, which: m.DomainOnly) -> Reply:
        await self._state.drop_verdicts(SPF, which.domain, [SPF_FLAG])
        return Reply("deleted")

    def _by_domain(self, text: str) -> bool:
        """Whether a client that is given by its address may have been met as a domain instead."""
        return self._grl.spf_identity and client_address(text) is not None

    def _nothing(self, text: str) -> str:
        """That nothing counts for a client, and what to ask for instead."""
        remark = f"Nothing counts for {self._client(text)}."
        if self._by_domain(text):
            return f"{remark} One that SPF passed counts as its sender's domain: ask for that."
        if client_address(text) is None:
            return f"{remark} One that SPF did not pass counts as its network: ask for its address."
        return remark

    def _client(self, text: str) -> str:
        """What stands for a client: its network, or the domain that SPF passed."""
        if client_address(text) is None:
            return text
        return client_network(text, self._grl.ipv4_prefix, self._grl.ipv6_prefix)
