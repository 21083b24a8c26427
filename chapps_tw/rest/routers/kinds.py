"""The four kinds of entries of the book, and what their routes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel

from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.writable_book import Rule
from chapps_tw.rest import answers as a
from chapps_tw.rest import list_answers as lists
from chapps_tw.rest.models import book as m
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.routing import Refusal
from chapps_tw.rest.rule_answers import OneQuota


class Kind(NamedTuple):
    """The properties of a kind.

    :ivar fields: besides id and name.
    :ivar linked: the kinds it can be linked to. A user's quota is a single id, other links are lists.
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
    by_name: type[Input]

    @property
    def with_article(self) -> str:
        return f"{'an' if self.singular == 'email' else 'a'} {self.singular}"


KINDS = {
    "users": Kind(
        "users", "user", (), ("quotas", "domains", "emails"), lists.UserList, a.OneUser, m.NewUser, m.WrappedUser,
        m.ChangedUser, m.WrappedUserChanges, m.UserIds, m.UsersOf, m.UserByName,
    ),
    "domains": Kind(
        "domains", "domain", ("greylist", "check_spf", "each_quota", "pool_quota"), ("users",), lists.DomainList,
        a.OneDomain, m.NewDomain, m.WrappedDomain, m.ChangedDomain, m.WrappedDomainChanges, m.DomainIds, m.DomainsOf,
        m.DomainByName,
    ),
    "emails": Kind(
        "emails", "email", (), ("users",), lists.EmailList, a.OneEmail, m.NewEmail, m.WrappedEmail, m.ChangedEmail,
        m.WrappedEmailChanges, m.EmailIds, m.EmailsOf, m.EmailByName,
    ),
    "quotas": Kind(
        "quotas", "quota", ("quota",), (), lists.QuotaList, OneQuota, m.NewQuota, m.WrappedQuota, m.ChangedQuota,
        m.WrappedQuotaChanges, m.QuotaIds, m.QuotaIds, m.QuotaByName,
    ),
}  # fmt: skip

# The fields that CHAPPS shows of what is linked to a user.
_SHOWN_BESIDE = frozenset({"id", "name", "quota", "greylist", "check_spf"})

LINKS = (("users", "domains"), ("users", "emails"), ("domains", "users"), ("emails", "users"), ("quotas", "users"))


def shown(kind: str, entry: Entry) -> dict[str, Any]:
    """Return an entry as the object that the API shows."""
    found: dict[str, Any] = {"id": entry.id, "name": entry.name}
    for name in KINDS[kind].fields:
        found[name] = getattr(entry, name)
    return found


def shown_beside(kind: str, entry: Entry) -> dict[str, Any]:
    """Return a linked entry as the object that the API shows beside another."""
    return {name: value for name, value in shown(kind, entry).items() if name in _SHOWN_BESIDE}


def singular(kind: str) -> str:
    """Return what one entry of a kind is called. All plurals are regular."""
    return kind.removesuffix("s")


def missing(kind: str, id: int) -> Refusal:
    """Return the 404 for an id."""
    return Refusal(404, f"There is no {singular(kind)} with id {id}.")


def missing_name(kind: str, name: str) -> Refusal:
    """Return the 404 for a name."""
    return Refusal(404, f"There is no {singular(kind)} named {name}.")


def unknown_ids(kind: str, ids: Sequence[int], found: Sequence[Entry | Rule]) -> list[str]:
    """Return a remark about ids that do not exist, if there are any."""
    left = sorted(set(ids).difference(entry.id for entry in found))
    if not left:
        return []
    some = ", ".join(str(id) for id in left[:10]) + (" and others" if len(left) > 10 else "")
    return [f"There is no {singular(kind)} with id {some}."]
