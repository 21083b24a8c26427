"""The models that validate what comes in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.inbound import client_address
from chapps_tw.names import MAX_DOMAIN, MAX_EMAIL, normal_domain, normal_email

MAX_ID = 2**31 - 1
MAX_IDS = 1000
MAX_LIST = 10_000


class Input(BaseModel):
    """What a route takes."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Input):
    """A route that takes nothing."""


def _normal(form: Callable[[str], str], what: str) -> AfterValidator:
    def check(text: str) -> str:
        name = form(text)
        if not name:
            raise ValueError(f"must be {what}")
        return name

    return AfterValidator(check)


# No control characters: no mail program writes them, and PostgreSQL takes no NUL.
_PLAIN = r"^[^\u0000-\u001f\u007f-\u009f]*$"

# What normal_domain and normal_email take, as far as JSON Schema can tell. They take underscores too.
_LABEL = "[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = rf"{_LABEL}(\.{_LABEL})*\.?"
_ASCII_DOMAIN: JsonDict = {"pattern": f"^{_DOMAIN}$", "maxLength": MAX_DOMAIN}
_ASCII_EMAIL: JsonDict = {"pattern": f"^[ -?A-~]+@{_DOMAIN}$", "maxLength": MAX_EMAIL}
_IDN: JsonDict = {"format": "idn-hostname", "maxLength": MAX_DOMAIN}
_IDN_EMAIL: JsonDict = {"format": "idn-email", "maxLength": MAX_EMAIL}

Id = Annotated[int, Field(ge=1, le=MAX_ID)]
Ids = Annotated[list[Id], Field(max_length=MAX_IDS)]
Text = Annotated[str, Field(max_length=MAX_EMAIL, pattern=_PLAIN)]
UserName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=128,
        pattern=_PLAIN,
        description="The name that the user logs in with, as Postfix tells it; letter case counts.",
        examples=["alice@example.com"],
    ),
]
QuotaName = Annotated[
    str, Field(min_length=1, max_length=32, pattern=_PLAIN, description="A name to tell it by.", examples=["basic"])
]
QuotaLimit = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_ID,
        description="Transmissions in the rolling interval. No two quotas have the same.",
        examples=[100],
    ),
]
DomainName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_DOMAIN,
        description="A domain name. One with other than ASCII letters is kept as A-labels (IDNA), all in lower case.",
        examples=["example.com"],
        json_schema_extra={"anyOf": [_ASCII_DOMAIN, _IDN]},
    ),
    _normal(normal_domain, "a domain name"),
]
EmailName = Annotated[
    str,
    Field(
        min_length=3,
        max_length=MAX_EMAIL,
        description="A mail address. Its domain is kept like that of a domain; letter case counts before the @.",
        examples=["alice@example.com"],
        json_schema_extra={"anyOf": [_ASCII_EMAIL, _IDN_EMAIL]},
    ),
    _normal(normal_email, "a mail address"),
]
Greylist = Annotated[bool, Field(description="Whether mail to this domain is greylisted.")]
CheckSpf = Annotated[bool, Field(description="Whether SPF decides about mail to this domain, not only adds a header.")]


# --- what comes in: the book ----------------------------------------------------------------------


class Listing(Input):
    q: Text = Field("", description="Only those whose name contains this, letter case aside.")
    skip: int = Field(0, ge=0, le=MAX_ID, description="How many to leave out at first; lists are ordered by id.")
    limit: int = Field(1000, ge=1, le=MAX_LIST, description="How many to list at most.")


class ById(Input):
    id: Id = Field(description="Its id, as lists and the answer to its creation show it.")


class LinkedListing(Listing, ById):
    pass


class UserIds(Input):
    user_ids: Ids = Field(description="Ids of users.")


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
    name: UserName


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
    quota: Id | None = Field(None, description="Id of the quota that the user is to have.", examples=[1])
    domains: Ids | None = Field(
        None, description="Ids of the domains from all of whose addresses the user may send.", examples=[[1, 2]]
    )
    emails: Ids | None = Field(
        None, description="Ids of single addresses that the user may send from besides.", examples=[[3]]
    )


class UserLink(Input):
    users: Ids | None = Field(None, description="Ids of the users that may send from it.", examples=[[1]])


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
    name: UserName | None = None


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


def _any_of(description: str, *schemas: JsonDict) -> dict[str, Any]:
    return {"type": "string", "description": description, "anyOf": list(schemas)}


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


def _source(text: str) -> str:
    return normal_email(text) if "@" in text else normal_domain(text)


def _client(text: str) -> str:
    bare = text.removeprefix("[").removesuffix("]")
    return bare if client_address(bare) is not None else normal_domain(text)


Source = Annotated[
    str,
    _normal(_source, "a domain name or a mail address"),
    WithJsonSchema(_any_of("A domain name or a mail address.", _ASCII_DOMAIN, _IDN, _ASCII_EMAIL, _IDN_EMAIL)),
]
Client = Annotated[
    str,
    _normal(_client, "an IPv4 or IPv6 address, or a domain name"),
    WithJsonSchema(
        _any_of(
            "An address, or the domain that SPF passed for the client.",
            {"format": "ipv4"},
            {"format": "ipv6"},
            _ASCII_DOMAIN,
            _IDN,
        )
    ),
]


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


# --- what comes in: insight -----------------------------------------------------------------------

_REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sasl_username": "alice@example.com",
    "sender": "alice@example.com",
    "recipient": "friend@example.net",
}
_ATTRIBUTE = Annotated[str, Field(max_length=16384, pattern=r"^[^\u0000\n]*$")]


class Question(Input):
    """A policy request, and the listener that it is meant for."""

    attributes: dict[str, _ATTRIBUTE] = Field(
        min_length=1,
        max_length=256,
        description="What Postfix would send, as in SMTPD_POLICY_README.",
        examples=[_REQUEST],
    )
    listener: Text = Field("", description="The listener to ask; without one, the first that fits the request.")


class DecisionFilter(Input):
    user: Text = Field("", description="Only those about this user.")
    sender: Text = Field("", description="Only those about mail from this address.")
    recipient: Text = Field("", description="Only those about mail to this address.")
    client: Text = Field("", description="Only those about mail from this client address.")
    instance: Text = Field("", description="Only those of the message that Postfix gave this instance.")
    queue_id: Text = Field("", description="Only those of the message with this queue id.")
    limit: int = Field(100, ge=1, le=1000, description="How many to list at most, the newest first.")


class Asset(Input):
    name: Text
