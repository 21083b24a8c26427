"""The four kinds of objects of the book, and what all routes say about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from chapps_tw.interfaces.book import Entry
from chapps_tw.rest import answers as a
from chapps_tw.rest.models import book as m
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.routing import Refusal


class Kind(NamedTuple):
    """What is particular to one of the four kinds.

    :ivar fields: what its objects hold beside id and name.
    :ivar linked: the kinds it can be linked to. A user's quota is one id, else they are lists.
    """

    plural: str
    singular: str
    fields: tuple[str, ...]
    linked: tuple[str, ...]
    many: type[BaseModel]
    one: type[BaseModel]
    new: type[Input]
    new_wrapped: type[Input]
    changed: type[Input]
    changed_wrapped: type[Input]
    ids: type[Input]
    ids_of: type[Input]

    @property
    def with_article(self) -> str:
        return f"{'an' if self.singular == 'email' else 'a'} {self.singular}"


KINDS = {
    "users": Kind(
        "users", "user", (), ("quotas", "domains", "emails"), a.UserList, a.OneUser, m.NewUser, m.WrappedUser,
        m.ChangedUser, m.WrappedUserChanges, m.UserIds, m.UsersOf,
    ),
    "domains": Kind(
        "domains", "domain", ("greylist", "check_spf"), ("users",), a.DomainList, a.OneDomain, m.NewDomain,
        m.WrappedDomain, m.ChangedDomain, m.WrappedDomainChanges, m.DomainIds, m.DomainsOf,
    ),
    "emails": Kind(
        "emails", "email", (), ("users",), a.EmailList, a.OneEmail, m.NewEmail, m.WrappedEmail, m.ChangedEmail,
        m.WrappedEmailChanges, m.EmailIds, m.EmailsOf,
    ),
    "quotas": Kind(
        "quotas", "quota", ("quota",), (), a.QuotaList, a.OneQuota, m.NewQuota, m.WrappedQuota, m.ChangedQuota,
        m.WrappedQuotaChanges, m.QuotaIds, m.QuotaIds,
    ),
}  # fmt: skip

LINKS = (("users", "domains"), ("users", "emails"), ("domains", "users"), ("emails", "users"))


def shown(kind: str, entry: Entry) -> dict[str, Any]:
    """An entry as the object that the API shows."""
    found: dict[str, Any] = {"id": entry.id, "name": entry.name}
    for name in KINDS[kind].fields:
        found[name] = getattr(entry, name)
    return found


def missing(kind: str, id: int) -> Refusal:
    """The 404 for an id."""
    return Refusal(404, f"There is no {KINDS[kind].singular} with id {id}.")


def unknown_ids(kind: str, ids: Sequence[int], found: Sequence[Entry]) -> list[str]:
    """A remark about ids that were not found, if there are any."""
    left = sorted(set(ids).difference(entry.id for entry in found))
    if not left:
        return []
    some = ", ".join(str(id) for id in left[:10]) + (" and others" if len(left) > 10 else "")
    return [f"There is no {KINDS[kind].singular} with id {some}."]
