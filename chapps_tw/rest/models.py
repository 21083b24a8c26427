"""The models that validate what comes in."""

from __future__ import annotations

from typing import Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    model_validator,
)

from chapps_tw.rest.fields import (
    MAX_ID,
    CheckSpf,
    Client,
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
    Source,
    Text,
    UserName,
)

MAX_LIST = 10_000
MAX_PAIRS = 10_000


class Input(BaseModel):
    """What a route takes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Input):
    """A route that takes nothing."""


# --- what comes in: the book ----------------------------------------------------------------------


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


# --- what comes in: live state --------------------------------------------------------------------


class Who(Input):
    """A user by id, or by name where the id is 0 or is not found."""

    user_id: int = Field(ge=0, le=MAX_ID, description="The user's id, or 0 to ask by name.")
    name: UserName | None = Field(
        None, description="The user's name: needed when the id is 0, and used when there is no user with the id."
    )


class Passcode(Input):
    passcode: str = Field(min_length=1, max_length=1024, description="The passcode whose hash is in the configuration.")


class Authorizations(Input):
    user_ids: Ids = Field(description="Ids of users.")
    domain_ids: Ids = Field([], description="Ids of domains. Of these and `email_ids`, one must be given.")
    email_ids: Ids = Field([], description="Ids of mail addresses. Of these and `domain_ids`, one must be given.")

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.user_ids) * (len(self.domain_ids) + len(self.email_ids)) > MAX_PAIRS:
            raise ValueError(f"there must be at most {MAX_PAIRS} pairs of user and sender")
        return self


class Authorization(Input):
    source: Source
    user: UserName


class Tuple(Input):
    client_address: Client
    sender: Text = Field(description="The address that the mail comes from; empty for the null sender.")
    recipient: Text = Field(description="The address that the mail goes to.")


class TallyOf(Input):
    client_address: Client


class DomainOnly(Input):
    domain: DomainName


class Asset(Input):
    name: Text
