"""Models of the lists of users, domains, emails and quotas."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Domain, Email, LinkedDomain, Quota, User
from chapps_tw.rest.live_answers import Limit
from chapps_tw.rest.rule_answers import LimitOfQuota

_IF_NAMED = "Only if `with` names it."


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


class UserList(Answer[list[ListedUser]]):
    pass


class DomainList(Answer[list[ListedDomain]]):
    pass


class EmailList(Answer[list[ListedEmail]]):
    pass


class QuotaList(Answer[list[ListedQuota]]):
    pass
