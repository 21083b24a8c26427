"""What a new user still needs, to be able to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.mail.addresses import split_address

Ids = Mapping[str, Sequence[int]]


class NewUsers:
    """Finds out whether a new user may send."""

    def __init__(self, settings: Settings, book: WritableBook) -> None:
        self._default_quota = settings.oqp.default_quota
        self._own_address = settings.sda.own_address
        self._fold_case = settings.chapps.fold_case
        self._book = book

    async def remarks(self, user: Entry, links: Ids) -> list[str]:
        """Return a remark for each reason why the user may send nothing.

        :param links: ids of what is linked to the user, by kind.
        """
        put = f"PUT /users/{user.id}"
        missing = {
            f"no quota: set one (chapps-cli set-quota, or {put}/quota/ID)": not await self._has_quota(user, links),
            "no domain and no address to send from: add some (chapps-cli allow, or "
            f"{put}/domains/ or {put}/emails/)": not self._has_senders(user, links),
        }
        return [f"User {user.name} may send nothing yet, with {what}." for what, true in missing.items() if true]

    def _has_senders(self, user: Entry, links: Ids) -> bool:
        own = self._own_address and self._domain_of(user)
        return bool(links.get("domains") or links.get("emails") or own)

    async def _has_quota(self, user: Entry, links: Ids) -> bool:
        if links.get("quotas"):
            return True
        if self._default_quota and await self._book.by_name("quotas", self._default_quota):
            return True
        return any(domain.each_quota is not None for domain in await self._domains(user, links))

    async def _domains(self, user: Entry, links: Ids) -> list[Entry]:
        """Return the domains whose quotas may apply: that of the login, else those that the user may send from."""
        own = self._domain_of(user)
        if own:
            names = {own}
        else:
            names = {self._domain_of(email) for email in await self._book.by_ids("emails", links.get("emails", ()))}
        found = await self._book.by_names("domains", sorted(names - {""}))
        linked = [] if own else await self._book.by_ids("domains", links.get("domains", ()))
        return [*found.values(), *linked]

    def _domain_of(self, entry: Entry) -> str:
        return split_address(entry.name, self._fold_case)[1]
