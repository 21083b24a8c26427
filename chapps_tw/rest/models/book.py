"""Input about users, domains, emails and quotas."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.fields import (
    MAX_ID,
    CheckSpf,
    DomainName,
    EmailName,
    EnteredUserName,
    Flag,
    Greylist,
    Id,
    IdOrNone,
    Ids,
    QuotaLimit,
    QuotaName,
    Text,
)
from chapps_tw.rest.models.base import Input

MAX_LIST = 10_000


class Listing(Input):
    q: Text = Field(
        "",
        description="Only those whose name contains this, letter case aside. A domain's label of other than ASCII "
        "letters is found as a whole.",
    )
    skip: int = Field(0, ge=0, le=MAX_ID, description="How many to leave out at first; lists are ordered by id.")
    limit: int = Field(1000, ge=1, le=MAX_LIST, description="How many to list at most.")


class ById(Input):
    id: Id = Field(description="Its id, as lists and the answer to its creation show it.")


class LinkedListing(Listing, ById):
    pass


class UserIds(Input):
    user_ids: Ids = Field(description="Ids of users.")


class QuotasOf(UserIds):
    nulls: Flag = Field(True, description="Whether users without a quota are listed.")


class DomainIds(Input):
    domain_ids: Ids = Field(description="Ids of domains.")


class EmailIds(Input):
    email_ids: Ids = Field(description="Ids of mail addresses.")


class QuotaIds(Input):
    quota_ids: Ids = Field(description="Ids of quotas.")


class UsersOf(ById, UserIds):
    pass


class DomainsOf(ById, DomainIds):
    pass


class EmailsOf(ById, EmailIds):
    pass


class UserQuota(Input):
    id: Id = Field(description="The user's id.")
    quota_id: Id = Field(description="The quota's id.")


class UserFields(Input):
    name: EnteredUserName


class DomainFields(Input):
    name: DomainName
    greylist: Greylist = False
    check_spf: CheckSpf = False


class EmailFields(Input):
    name: EmailName


class QuotaFields(Input):
    name: QuotaName
    quota: QuotaLimit


class UserLinks(Input):
    quota: IdOrNone | None = Field(
        None, description="Id of the quota that the user is to have. 0 gives none, and takes none away.", examples=[1]
    )
    domains: Ids | None = Field(
        None,
        description="Ids of the domains from all of whose addresses the user may send. An empty list changes nothing.",
        examples=[[1, 2]],
    )
    emails: Ids | None = Field(
        None,
        description="Ids of single addresses that the user may send from besides. An empty list changes nothing.",
        examples=[[3]],
    )


class UserLink(Input):
    users: Ids | None = Field(
        None, description="Ids of the users that may send from it. An empty list changes nothing.", examples=[[1]]
    )


class NewUser(UserLinks, UserFields):
    """A user, with ids of what is linked to it."""


class NewDomain(UserLink, DomainFields):
    """A domain, with ids of the users it is linked to."""


class NewEmail(UserLink, EmailFields):
    """A mail address, with ids of the users it is linked to."""


class NewQuota(QuotaFields):
    """A quota."""


class WrappedUser(UserLinks):
    user: UserFields


class WrappedDomain(UserLink):
    domain: DomainFields


class WrappedEmail(UserLink):
    email: EmailFields


class WrappedQuota(Input):
    quota: QuotaFields


class UserChanges(Input):
    id: Id
    name: EnteredUserName | None = None


class DomainChanges(Input):
    id: Id
    name: DomainName | None = None
    greylist: Greylist | None = None
    check_spf: CheckSpf | None = None


class EmailChanges(Input):
    id: Id
    name: EmailName | None = None


class QuotaChanges(Input):
    id: Id
    name: QuotaName | None = None
    quota: QuotaLimit | None = None


class ChangedUser(UserLinks, UserChanges):
    """What is to change of a user; what is not given stays. Lists of ids replace those there."""


class ChangedDomain(UserLink, DomainChanges):
    """What is to change of a domain; what is not given stays. A list of ids replaces those there."""


class ChangedEmail(UserLink, EmailChanges):
    """What is to change of a mail address; what is not given stays. A list of ids replaces those there."""


class ChangedQuota(QuotaChanges):
    """What is to change of a quota, for all of its users; what is not given stays."""


class WrappedUserChanges(UserLinks):
    user: UserChanges


class WrappedDomainChanges(UserLink):
    domain: DomainChanges


class WrappedEmailChanges(UserLink):
    email: EmailChanges


class WrappedQuotaChanges(Input):
    quota: QuotaChanges
