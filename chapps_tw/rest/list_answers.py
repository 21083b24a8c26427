"""Models of the lists of users, domains, emails and quotas."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import Field

from chapps_tw.rest.answers import Answer, Domain, Email, LinkedDomain, Quota, User
from chapps_tw.rest.live_answers import Limit
from chapps_tw.rest.rule_answers import LimitOfQuota

_IF_NAMED = "Only if `with` names it."


T = TypeVar("T")


class ListAnswer(Answer[list[T]], Generic[T]):
    total: int | None = Field(None, description="The number of entries on all pages, if `total` asks for it.")


class ListedUser(User):
    quota: Quota | None = Field(None, description=_IF_NAMED)
    domains: list[LinkedDomain] = Field([], description="Only if `with` names it, and with `near`.")
    emails: list[Email] = Field([], description=_IF_NAMED)
    limits: list[Limit] = Field([], description="Only with `near`: the limits of which that much is used.")


class ListedDomain(Domain):
    users: list[User] = Field([], description=_IF_NAMED)


class ListedEmail(Email):
    users: list[User] = Field([], description=_IF_NAMED)


class ListedQuota(Quota):
    limits: list[LimitOfQuota] = Field([], description=_IF_NAMED)
    users: list[User] = Field([], description=_IF_NAMED)


class UserList(ListAnswer[ListedUser]):
    pass


class DomainList(ListAnswer[ListedDomain]):
    pass


class EmailList(ListAnswer[ListedEmail]):
    pass


class QuotaList(ListAnswer[ListedQuota]):
    pass
