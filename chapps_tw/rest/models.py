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
UserName = Annotated[str, Field(min_length=1, max_length=128, pattern=_PLAIN)]
QuotaName = Annotated[str, Field(min_length=1, max_length=32, pattern=_PLAIN)]
QuotaLimit = Annotated[int, Field(ge=0, le=MAX_ID)]
DomainName = Annotated[
    str,
    Field(min_length=1, max_length=MAX_DOMAIN, json_schema_extra={"anyOf": [_ASCII_DOMAIN, _IDN]}),
    _normal(normal_domain, "a domain name"),
]
EmailName = Annotated[
    str,
    Field(min_length=3, max_length=MAX_EMAIL, json_schema_extra={"anyOf": [_ASCII_EMAIL, _IDN_EMAIL]}),
    _normal(normal_email, "a mail address"),
]


# --- what comes in: the book ----------------------------------------------------------------------


class Listing(Input):
    q: Text = Field("", description="Part of the name.")
    skip: int = Field(0, ge=0, le=MAX_ID)
    limit: int = Field(1000, ge=1, le=MAX_LIST)


class ById(Input):
    id: Id


class LinkedListing(Listing):
    id: Id


class UserIds(Input):
    user_ids: Ids


class DomainIds(Input):
    domain_ids: Ids


class EmailIds(Input):
    email_ids: Ids


class QuotaIds(Input):
    quota_ids: Ids


class UsersOf(ById, UserIds):
    pass


class DomainsOf(ById, DomainIds):
    pass


class EmailsOf(ById, EmailIds):
    pass


class UserQuota(Input):
    id: Id
    quota_id: Id


class UserFields(Input):
    name: UserName


class DomainFields(Input):
    name: DomainName
    greylist: bool = False
    check_spf: bool = False


class EmailFields(Input):
    name: EmailName


class QuotaFields(Input):
    name: QuotaName
    quota: QuotaLimit


class UserLinks(Input):
    quota: Id | None = None
    domains: Ids | None = None
    emails: Ids | None = None


class UserLink(Input):
    users: Ids | None = None


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
    greylist: bool | None = None
    check_spf: bool | None = None


class EmailChanges(Input):
    id: Id
    name: EmailName | None = None


class QuotaChanges(Input):
    id: Id
    name: QuotaName | None = None
    quota: QuotaLimit | None = None


class ChangedUser(UserLinks, UserChanges):
    """What is to change of a user. Lists of ids replace those there."""


class ChangedDomain(UserLink, DomainChanges):
    """What is to change of a domain. A list of ids replaces those there."""


class ChangedEmail(UserLink, EmailChanges):
    """What is to change of a mail address. A list of ids replaces those there."""


class ChangedQuota(QuotaChanges):
    """What is to change of a quota."""


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

    user_id: int = Field(ge=0, le=MAX_ID)
    name: UserName | None = None


class Passcode(Input):
    passcode: str = Field(min_length=1, max_length=1024)


class Authorizations(Input):
    user_ids: Ids
    domain_ids: Ids = []
    email_ids: Ids = []


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
    sender: Text
    recipient: Text


class TallyOf(Input):
    client_address: Client


class DomainOnly(Input):
    domain: DomainName


# --- what comes in: insight -----------------------------------------------------------------------

_ATTRIBUTE = Annotated[str, Field(max_length=16384, pattern=r"^[^\u0000\n]*$")]


class Question(Input):
    """A policy request, and the listener that it is meant for."""

    attributes: dict[str, _ATTRIBUTE] = Field(min_length=1, max_length=256)
    listener: Text = Field("", description="The listener to ask; without one, the first that fits the request.")


class DecisionFilter(Input):
    user: Text = ""
    sender: Text = ""
    recipient: Text = ""
    client: Text = ""
    instance: Text = ""
    queue_id: Text = ""
    limit: int = Field(100, ge=1, le=1000)


class Asset(Input):
    name: Text
