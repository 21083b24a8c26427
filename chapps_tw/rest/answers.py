"""Models of the answers."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.rest.fields import Id

T = TypeVar("T")


class Output(BaseModel):
    """The base of all answer models. They only describe: no validator is built at the start."""

    model_config = ConfigDict(defer_build=True)


def iso_of(name: str) -> Any:
    """Return the field that has another, which is epoch seconds, as text."""
    return Field(description=f"The same as `{name}`, as ISO 8601 in UTC.", examples=["2026-09-21T14:13:20.250Z"])


class User(Output):
    id: Id
    name: str = Field(examples=["alice@example.com"])


class LinkedDomain(Output):
    id: Id
    name: str = Field(examples=["example.com"])
    greylist: bool
    check_spf: bool


class Domain(LinkedDomain):
    each_quota: Id | None = Field(description="Id of the quota of each user of the domain who has none of his own.")
    pool_quota: Id | None = Field(description="Id of the quota that all users of the domain share.")


class Email(Output):
    id: Id
    name: str = Field(examples=["alice@example.com"])


class Quota(Output):
    id: Id
    name: str = Field(examples=["basic"])
    quota: int | None = Field(
        description="Transmissions in the rolling interval; null if only its limits count.", examples=[100]
    )


_USER: JsonDict = {"id": 1, "name": "alice@example.com"}
_DOMAIN: JsonDict = {"id": 1, "name": "example.com", "greylist": True, "check_spf": True}
_EMAIL: JsonDict = {"id": 3, "name": "sales@example.org"}
_QUOTA: JsonDict = {"id": 1, "name": "basic", "quota": 100}


class Answer(Output, Generic[T]):
    """The envelope."""

    version: str = Field(examples=["CHAPPS-TW v1.0.0"])
    timestamp: float = Field(description="UNIX epoch, UTC.", examples=[1790000000.25])
    timestamp_iso: str = iso_of("timestamp")
    response: T
    remarks: list[str] = Field(description="Sentences for people; may be empty.")


class Said(Answer[str]):
    """A sentence, a status or a path."""


class Count(Answer[int]):
    """A number of transmissions."""


class Moment(Answer[float]):
    """UNIX epoch, 0.0 for never."""

    response_iso: str | None = iso_of("response")


class OneUser(Answer[User]):
    """A user. After a change, members that the request did not set are null."""

    quota: Quota | None = Field(None, examples=[_QUOTA])
    domains: list[LinkedDomain] | None = Field(None, examples=[[_DOMAIN]])
    emails: list[Email] | None = Field(None, examples=[[_EMAIL]])


class OneDomain(Answer[Domain]):
    """A domain. After a change, users are null unless the request set them."""

    users: list[User] | None = Field(None, examples=[[_USER]])


class OneEmail(Answer[Email]):
    """A mail address. After a change, users are null unless the request set them."""

    users: list[User] | None = Field(None, examples=[[_USER]])


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
    quota_avail: int = Field(description="Transmissions that remain now.")


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


CountedIso = Annotated[
    tuple[str, str | None],
    WithJsonSchema(
        {"type": "array", "items": {"type": ["string", "null"]}, "minItems": 2, "maxItems": 2, "title": "CountedIso"}
    ),
]


class TallyList(Answer[list[Counted]]):
    """Instance and UNIX epoch, oldest first."""

    response_iso: list[CountedIso] = Field(description="The same with times as ISO 8601 in UTC.")


class Decided(Output):
    time: float = Field(description="UNIX epoch, UTC.")
    time_iso: str | None = iso_of("time")
    listener: str
    policy: str
    action: str = Field(description="What Postfix was answered.", examples=["DUNNO"])
    reason: str = Field(description="For programs: stays the same when texts change.", examples=["within_quota"])
    figures: dict[str, float] = Field(description="The figures behind it, such as limit, used and remaining.")
    shadow: str = Field(description="In shadow mode, the action that was suppressed; otherwise empty.")
    user: str
    sender: str
    recipient: str
    client: str
    instance: str
    queue_id: str
    stage: str = Field(description="Postfix's protocol_state.", examples=["RCPT"])
    detail: str = Field(
        description="Details: the error behind a failure, the SPF result, what greylisting used as the client and why "
        "it applied.",
        examples=["client 192.0.2.0/24"],
    )
    source: str = Field(description="Where the data for the decision came from: cache, database, dns.")
    also: str = Field(
        description="Decisions of later policies on mail that this policy answered, such as greylisting after SPF "
        "added a header. Empty if there are none, and in `/live/explain/`, which lists them all.",
        examples=["GreylistingPolicy:greylist_passed"],
    )


class Sequenced(Decided):
    sequence: int = Field(
        description="One higher for each decision of the node, including those not shown. After a restart, the node "
        "continues with a higher number.",
        examples=[1790000000250001],
    )


class DecidedList(Answer[list[Sequenced]]):
    last_sequence: int = Field(
        description="The sequence number of the newest decision searched, 0 or more. Use it as `after` to continue.",
        examples=[1790000000250001],
    )
    dropped: bool = Field(
        description="Whether decisions after `after` are, or may be, missing: the node keeps only the last, "
        "and may have been restarted."
    )


class Explanation(Answer[list[Decided]]):
    """The decision of each policy, in the order in which they run."""

    answer: Decided = Field(
        description="The decision that Postfix would get: the first that stops the mail, else the last one other than "
        "DUNNO. Policies after one that stops the mail would not run."
    )


class Part(Output):
    name: str
    up: bool
    latency: float = Field(description="Seconds.")
    problem: str


class Alive(Answer[str]):
    pass


class Loaded(Output):
    digest: str = Field(
        description="The same for the same options on every node. Passwords and keys are not part of it.",
        examples=["3f0c8a51d2be"],
    )
    loaded: float = Field(description="When it was put in force. UNIX epoch, UTC.", examples=[1790000000.25])
    loaded_iso: str = iso_of("loaded")


class Change(Loaded):
    changed: list[str] = Field(examples=[["[OutboundQuotaPolicy] rejection_message", "[Limit flood]"]])
    restart: list[str] = Field(examples=[["[API] listen"]])


class Reloaded(Answer[Change]):
    """What has changed."""


class Ready(Answer[list[Part]]):
    configuration: Loaded = Field(description="The configuration in force.")


class NotReady(Ready):
    detail: str


class Error(Output):
    detail: str = Field(description="A sentence.")
    remarks: list[str] = Field([], description="Further sentences. Omitted if there are none.")


class Fault(Output):
    loc: list[str | int] = Field(description="Location: path, query or body, and field.", examples=[["body", "name"]])
    msg: str = Field(description="The error.", examples=["is missing"])
    type: str = Field(description="For programs.", examples=["missing"])


class Invalid(Output):
    detail: list[Fault]
