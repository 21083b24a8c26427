"""The cached verdicts of sender authorization."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState, ValueKey
from chapps_tw.interfaces.value_keys import sender, senders_of_domain
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.mail.addresses import normal_domain, normal_email, normal_name, without_extension
from chapps_tw.policies.sender_auth import is_allowed
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import live as m
from chapps_tw.rest.routers.kinds import unknown_ids
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope

# Names per operation on the state, which takes longest for those that are not cached.
BATCH = 20
# Users for whom the state is queried at the same time.
WORKERS = 2

_STATUS = {True: "AUTHORIZED", False: "PROHIBITED", None: "NOT CACHED"}

# Verdicts of a user about some names: ``None`` if not cached.
Verdicts = list[bool | None]


def _status(allowed: Sequence[bool | None]) -> str:
    """Return the combined status of an address and, for a sub-address, of its base address."""
    return _STATUS[True if True in allowed else None if None in allowed else False]


def _versions(names: Sequence[str]) -> list[ValueKey]:
    """Return the keys of the versions that verdicts about some names have."""
    return [senders_of_domain(name.rpartition("@")[2]) for name in names]


class _Matrix(NamedTuple):
    """The verdicts about several users and senders.

    :ivar users: names of users.
    :ivar senders: names of domains and addresses.
    :ivar verdicts: for each user, one verdict per sender.
    """

    users: list[str]
    senders: list[str]
    verdicts: list[Verdicts]
    remarks: list[str]


class LiveSenders:
    """Routes for the cached verdicts of sender authorization."""

    def __init__(self, settings: Settings, state: LiveState, book: WritableBook, slices: Slices) -> None:
        self._slices = slices
        self._fold_case = settings.chapps.fold_case
        self._separators = settings.sda.subaddress_separators
        self._state = state
        self._book = book

    def routes(self) -> Iterator[Route[Any]]:
        one = "/live/sda/{source}/for/{user}"
        yield Route(
            "GET", "/live/sda/", "Show the cached verdicts about several users and senders", self.peek_all,
            m.Authorizations, a.StatusMap, body="*", errors=(400,), tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", "/live/sda/", "Clear the cached verdicts about several users and senders", self.clear_all,
            m.Authorizations, a.Said, body="*", errors=(400,), scope=Scope.OPERATOR, tag="live",
        )  # fmt: skip
        yield Route(
            "GET", one, "Show the cached verdict about a user and a sender", self.peek, m.Authorization, a.Status,
            query=False, tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", one, "Clear the cached verdict about a user and a sender", self.clear, m.Authorization, a.Status,
            query=False, scope=Scope.OPERATOR, tag="live", note="The response is the verdict before.",
        )  # fmt: skip

    async def peek(self, which: m.Authorization) -> Reply:
        return Reply(_status(await self._cached(self._user(which.user), self._names(which.source))))

    async def clear(self, which: m.Authorization) -> Reply:
        return Reply(_status(await self._drop(self._user(which.user), self._names(which.source))))

    async def _cached(self, user: str, names: Sequence[str]) -> Verdicts:
        keys = [sender(user, name) for name in names]
        found = [cached.value for cached in await self._state.values([*keys, *_versions(names)])]
        return [is_allowed(*each) for each in zip(found[: len(keys)], found[len(keys) :], strict=True)]

    async def _drop(self, user: str, names: Sequence[str]) -> Verdicts:
        """Delete verdicts; return what they were."""
        before = await self._cached(user, names)
        await self._slices.pause()
        await self._state.drop_values([sender(user, name) for name in names])
        return before

    def _user(self, name: str) -> str:
        return normal_name(name, self._fold_case)

    def _names(self, source: str) -> list[str]:
        """Return the names under which verdicts about a sender are cached: for a sub-address, also its base address."""
        name = self._email(source) if "@" in source else source
        base = without_extension(name, self._separators)
        return [name, base] if base else [name]

    def _email(self, text: str) -> str:
        return normal_email(text, self._fold_case) or text

    async def peek_all(self, which: m.Authorizations) -> Reply:
        matrix = await self._each(which, self._cached)
        by_sender = (
            (sender, {user: _STATUS[row[place]] for user, row in zip(matrix.users, matrix.verdicts, strict=True)})
            for place, sender in enumerate(matrix.senders)
        )
        return Reply(dict(await self._slices.collect(by_sender)), remarks=matrix.remarks)

    async def clear_all(self, which: m.Authorizations) -> Reply:
        matrix = await self._each(which, self._drop)
        cleared = sum(len(row) - row.count(None) for row in matrix.verdicts)
        pairs = len(matrix.users) * len(matrix.senders)
        return Reply(f"cleared {cleared} of {pairs}", remarks=matrix.remarks)

    async def _each(
        self, which: m.Authorizations, call: Callable[[str, Sequence[str]], Awaitable[Verdicts]]
    ) -> _Matrix:
        """Call a function with each user and batches of senders, in their cached forms; return its results."""
        if not which.domain_ids and not which.email_ids:
            raise Refusal(400, "domain_ids or email_ids is required.")
        users = await self._book.by_ids("users", which.user_ids)
        domains = await self._book.by_ids("domains", which.domain_ids) if which.domain_ids else []
        emails = await self._book.by_ids("emails", which.email_ids) if which.email_ids else []
        remarks = (
            unknown_ids("users", which.user_ids, users)
            + unknown_ids("domains", which.domain_ids, domains)
            + unknown_ids("emails", which.email_ids, emails)
        )
        keys = await self._slices.collect(normal_domain(entry.name) or entry.name for entry in domains)
        keys += await self._slices.collect(self._email(entry.name) for entry in emails)
        names = [user.name for user in users]

        async def of_user(name: str) -> Verdicts:
            return await self._slices.in_parts(keys, BATCH, partial(call, self._user(name)))

        verdicts = await self._slices.each(names, of_user, WORKERS)
        return _Matrix(names, [entry.name for entry in (*domains, *emails)], verdicts, remarks)
