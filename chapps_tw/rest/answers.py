"""The models that describe what goes out."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.mail.decision import Reason
from chapps_tw.rest.fields import Id

T = TypeVar("T")


class Output(BaseModel):
    """What a route answers with. It is only described: no validator need be built at a start."""

    model_config = ConfigDict(defer_build=True)


class User(Output):
    id: Id
    name: str = Field(examples=["alice@example.com"])


class Domain(Output):
    id: Id
    name: str = Field(examples=["example.com"])
    greylist: bool
    check_spf: bool


class Email(Output):
    id: Id
    name: str = Field(examples=["alice@example.com"])


class Quota(Output):
    id: Id
    name: str = Field(examples=["basic"])
    quota: int = Field(description="Transmissions in the rolling interval.", examples=[100])


_USER: JsonDict = {"id": 1, "name": "alice@example.com"}
_DOMAIN: JsonDict = {"id": 1, "name": "example.com", "greylist": True, "check_spf": True}
_EMAIL: JsonDict = {"id": 3, "name": "sales@example.org"}
_QUOTA: JsonDict = {"id": 1, "name": "basic", "quota": 100}


class Answer(Output, Generic[T]):
    """The envelope."""

    version: str = Field(examples=["CHAPPS-TW v1.0.0"])
    timestamp: float = Field(description="UNIX epoch, UTC.", examples=[1790000000.25])
    response: T
    remarks: list[str] = Field(description="Sentences for people; an empty list when there is nothing more to say.")


class Said(Answer[str]):
    """A sentence, a status or a path."""


class Count(Answer[int]):
    """A number of transmissions."""


class Moment(Answer[float]):
    """UNIX epoch, 0.0 for never."""


class UserList(Answer[list[User]]):
    pass


class DomainList(Answer[list[Domain]]):
    pass


class EmailList(Answer[list[Email]]):
    pass


class QuotaList(Answer[list[Quota]]):
    pass


class OneUser(Answer[User]):
    """A user. After a change, what was not given is null, whatever it is."""

    quota: Quota | None = Field(None, examples=[_QUOTA])
    domains: list[Domain] | None = Field(None, examples=[[_DOMAIN]])
    emails: list[Email] | None = Field(None, examples=[[_EMAIL]])


class OneDomain(Answer[Domain]):
    """A domain. After a change, users are null when they were not given, whoever they are."""

    users: list[User] | None = Field(None, examples=[[_USER]])


class OneEmail(Answer[Email]):
    """A mail address. After a change, users are null when they were not given, whoever they are."""

    users: list[User] | None = Field(None, examples=[[_USER]])


class OneQuota(Answer[Quota]):
    pass


class UserQuotaId(Output):
    user_name: str
    quota_id: Id | None


class UserDomains(Output):
    user_name: str
    domain_ids: list[Id]


class UserEmails(Output):
    user_name: str
    email_ids: list[Id]


class UserQuotaIds(Answer[list[UserQuotaId]]):
    pass


class UserDomainIds(Answer[list[UserDomains]]):
    pass


class UserEmailIds(Answer[list[UserEmails]]):
    pass


class Available(Output):
    user_name: str
    quota_avail: int = Field(description="Transmissions left now.")


class AvailableList(Answer[list[Available]]):
    pass


class Status(Answer[Annotated[str, WithJsonSchema({"enum": ["AUTHORIZED", "PROHIBITED", "NOT CACHED"]})]]):
    pass


class StatusMap(Answer[dict[str, dict[str, str]]]):
    """Domain or address, to user, to status."""


# Simpler than pydantic's own schema for a pair, which not every client generator reads.
Counted = Annotated[
    tuple[str, float],
    WithJsonSchema(
        {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 2, "maxItems": 2, "title": "Counted"}
    ),
]


class TallyList(Answer[list[Counted]]):
    """Instance and UNIX epoch, oldest first."""


_REASONS = "For programs: stays the same when texts change.\n\n" + "\n".join(
    f"- `{each.value}`: {each.meaning}" for each in Reason
)


class Decided(Output):
    time: float = Field(description="UNIX epoch, UTC.")
    listener: str
    policy: str
    action: str = Field(description="What Postfix was answered.", examples=["DUNNO"])
    reason: str = Field(
        description=_REASONS, examples=["within_quota"], json_schema_extra={"enum": [each.value for each in Reason]}
    )
    figures: dict[str, float] = Field(description="The figures behind it, as limit, used and remaining.")
    shadow: str = Field(description="In shadow mode, the action that was held back; else empty.")
    user: str
    sender: str
    recipient: str
    client: str
    instance: str
    queue_id: str
    stage: str = Field(description="Postfix's protocol_state.", examples=["RCPT"])
    detail: str = Field(
        description="What else there is to say: the error behind a failure, what SPF found, whom greylisting took for "
        "the client and who asked for it.",
        examples=["client 192.0.2.0/24"],
    )
    source: str = Field(description="Where what it was decided by was read: cache, database, dns.")
    also: str = Field(
        description="What the policies after this one said of mail that this one answered for: greylisting, of mail "
        "that SPF gave a header. Empty where there is none, and in `/live/explain/`, which lists them all.",
        examples=["GreylistingPolicy:greylist_passed"],
    )


class DecidedList(Answer[list[Decided]]):
    pass


class Explanation(DecidedList):
    """What every policy would answer, in the order in which they are asked."""

    answer: Decided = Field(
        description="Of these the one that Postfix would get: the first that stops the mail, else the last that is not "
        "DUNNO. Policies after one that stops the mail would not be asked."
    )


class Part(Output):
    name: str
    up: bool
    latency: float = Field(description="Seconds.")
    problem: str


class Alive(Answer[str]):
    pass


class Ready(Answer[list[Part]]):
    pass


class NotReady(Ready):
    detail: str


class Error(Output):
    detail: str = Field(description="A sentence.")
    remarks: list[str] = Field([], description="What more there is to say. Left out when there is nothing.")


class Fault(Output):
    loc: list[str | int] = Field(description="Where: path, query or body, and the field.", examples=[["body", "name"]])
    msg: str = Field(description="What is wrong there.", examples=["is missing"])
    type: str = Field(description="For programs.", examples=["missing"])


class Invalid(Output):
    detail: list[Fault]
