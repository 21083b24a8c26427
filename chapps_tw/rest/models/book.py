"""Input of the routes for users, domains, emails and quotas."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.interfaces.writable_book import Sort
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
    PlanOfEach,
    PlanOfPool,
    QuotaLimit,
    QuotaName,
    StoredEmail,
    StoredQuotaName,
    Text,
    UserName,
)
from chapps_tw.rest.models.base import Input

MAX_LIST = 10_000
# Of limits, overrides and exemptions: each may have a long reason.
MAX_PAGE = 1000


class Page(Input):
    skip: int = Field(0, ge=0, le=MAX_ID, description="The number of entries to skip.")
    limit: int = Field(MAX_PAGE, ge=1, le=MAX_PAGE, description="The maximum number of entries.")


class Listing(Page):
    limit: int = Field(1000, ge=1, le=MAX_LIST, description="The maximum number of entries.")
    q: Text = Field(
        "",
        description="Only entries whose name contains this text, case-insensitively. A label with non-ASCII letters "
        "must be complete.",
    )
    sort: Sort = Field(
        "id", description="The order: by id, which is that of creation, or by name; with `-` descending."
    )
    total: Flag = Field(False, description="Whether to count all entries, not only those of the page: see `total`.")


class ById(Input):
    id: Id = Field(description="The id, as shown in lists and in the answer to its creation.")


class UserByName(Input):
    name: UserName


class DomainByName(Input):
    name: DomainName


class EmailByName(Input):
    name: StoredEmail


class QuotaByName(Input):
    name: StoredQuotaName


class LinkedListing(Listing, ById):
    pass


class UserIds(Input):
    user_ids: Ids = Field(description="Ids of users.")


class QuotasOf(UserIds):
    nulls: Flag = Field(True, description="Whether to include users without a quota.")


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
    each_quota: PlanOfEach | None = None
    pool_quota: PlanOfPool | None = None


class EmailFields(Input):
    name: EmailName


class QuotaFields(Input):
    name: QuotaName
    quota: QuotaLimit | None


class UserLinks(Input):
    quota: IdOrNone | None = Field(None, description="Id of the user's quota. 0 changes nothing.", examples=[1])
    domains: Ids | None = Field(
        None,
        description="Ids of domains: the user may send from all of their addresses. An empty list changes nothing.",
        examples=[[1, 2]],
    )
    emails: Ids | None = Field(
        None,
        description="Ids of further addresses that the user may send from. An empty list changes nothing.",
        examples=[[3]],
    )


class UserLink(Input):
    users: Ids | None = Field(
        None, description="Ids of the users that may send from it. An empty list changes nothing.", examples=[[1]]
    )


class NewUser(UserLinks, UserFields):
    """A user, and ids of what to link to it."""


class NewDomain(UserLink, DomainFields):
    """A domain, and ids of the users to link to it."""


class NewEmail(UserLink, EmailFields):
    """A mail address, and ids of the users to link to it."""


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
    each_quota: PlanOfEach | None = None
    pool_quota: PlanOfPool | None = None


class EmailChanges(Input):
    id: Id
    name: EmailName | None = None


class QuotaChanges(Input):
    id: Id
    name: QuotaName | None = None
    quota: QuotaLimit | None = None


class ChangedUser(UserLinks, UserChanges):
    """Changes to a user. Omitted fields are left unchanged; lists of ids replace the existing links."""


class ChangedDomain(UserLink, DomainChanges):
    """Changes to a domain. Omitted fields are left unchanged; a list of ids replaces the existing links."""


class ChangedEmail(UserLink, EmailChanges):
    """Changes to a mail address. Omitted fields are left unchanged; a list of ids replaces the existing links."""


class ChangedQuota(QuotaChanges):
    """Changes to a quota, for all of its users. Omitted fields are left unchanged."""


class WrappedUserChanges(UserLinks):
    user: UserChanges


class WrappedDomainChanges(UserLink):
    domain: DomainChanges


class WrappedEmailChanges(UserLink):
    email: EmailChanges


class WrappedQuotaChanges(Input):
    quota: QuotaChanges
