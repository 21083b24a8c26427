"""The models that validate what comes in."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from chapps_tw.rest.fields import (
    MAX_ID,
    CheckSpf,
    Client,
    ClientOrNetwork,
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

# The largest whole number that every JSON reader takes as it is.
MAX_SEQUENCE = 2**53 - 1


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


# --- what comes in: insight -----------------------------------------------------------------------

_REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sasl_username": "alice@example.com",
    "sender": "alice@example.com",
    "recipient": "friend@example.net",
}
# As Postfix tells them (SMTPD_POLICY_README).
PROTOCOL_STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")
_MAX_ATTRIBUTE = 16384


def _attribute(value: object) -> str:
    """A name or a value as the policy port takes it: bytes that are no UTF-8 are in it as surrogates."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > _MAX_ATTRIBUTE:
        raise ValueError(f"must have at most {_MAX_ATTRIBUTE} characters")
    if "\0" in value or "\n" in value:
        raise ValueError("must not hold line ends or NUL")
    return value


# What people write, and what Postfix calls it.
_SLIPS = {
    **dict.fromkeys(("user", "username", "login"), "sasl_username"),
    **dict.fromkeys(("client", "ip", "address"), "client_address"),
    **dict.fromkeys(("from", "mail_from"), "sender"),
    **dict.fromkeys(("to", "rcpt", "rcpt_to"), "recipient"),
    **dict.fromkeys(("helo", "ehlo"), "helo_name"),
    **dict.fromkeys(("state", "stage"), "protocol_state"),
}


def _without_slips(attributes: dict[str, str]) -> dict[str, str]:
    slips = [f"{name} ({_SLIPS[name]})" for name in attributes if name in _SLIPS]
    if slips:
        raise ValueError(f"must have the names that Postfix gives its attributes, in place of {', '.join(slips)}")
    return attributes


def _in_a_state(attributes: dict[str, str]) -> dict[str, str]:
    state = attributes.get("protocol_state")
    if state and state.upper() not in PROTOCOL_STATES:
        raise ValueError(f"protocol_state must be one of {', '.join(PROTOCOL_STATES)}")
    return attributes


# Lone surrogates are no str to pydantic.
_NAME = Annotated[str, PlainValidator(_attribute), WithJsonSchema({"type": "string"})]
_VALUE = Annotated[
    str,
    PlainValidator(_attribute),
    WithJsonSchema({"type": "string", "maxLength": _MAX_ATTRIBUTE, "pattern": r"^[^\u0000\n]*$"}),
]


class Question(Input):
    """A policy request, and the listener that it is meant for."""

    attributes: Annotated[dict[_NAME, _VALUE], AfterValidator(_without_slips), AfterValidator(_in_a_state)] = Field(
        min_length=1,
        max_length=256,
        description="What Postfix would send, as in SMTPD_POLICY_README. Without `protocol_state`, RCPT is taken.",
        examples=[_REQUEST],
        json_schema_extra={"properties": {"protocol_state": {"type": "string", "enum": ["", *PROTOCOL_STATES]}}},
    )
    listener: Text = Field("", description="The listener to ask; without one, the first that fits the request.")


class DecisionFilter(Input):
    user: Text = Field("", description="Only those about this user, however spelled.")
    sender: Text = Field("", description="Only those about mail from this address, or from any of this domain.")
    recipient: Text = Field("", description="Only those about mail to this address, or to any of this domain.")
    client: ClientOrNetwork = Field("", description="Only those about mail from this client address or network.")
    instance: Text = Field("", description="Only those of the message that Postfix gave this instance.")
    queue_id: Text = Field("", description="Only those of the message with this queue id.")
    limit: int = Field(100, ge=1, le=1000, description="How many to list at most.")
    after: int | None = Field(
        None,
        ge=0,
        le=MAX_SEQUENCE,
        description="Only those after this sequence number, oldest first: the `last_sequence` of the answer before.",
    )


class Asset(Input):
    name: Text
