"""The models that describe what goes out."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field, WithJsonSchema

from chapps_tw.rest.models import Id

T = TypeVar("T")


class User(BaseModel):
    id: Id
    name: str


class Domain(BaseModel):
    id: Id
    name: str
    greylist: bool
    check_spf: bool


class Email(BaseModel):
    id: Id
    name: str


class Quota(BaseModel):
    id: Id
    name: str
    quota: int = Field(description="Transmissions in the interval.")


class Answer(BaseModel, Generic[T]):
    """The envelope."""

    version: str
    timestamp: float = Field(description="UNIX epoch, UTC.")
    response: T
    remarks: list[str] = []


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
    quota: Quota | None = None
    domains: list[Domain] | None = None
    emails: list[Email] | None = None


class OneDomain(Answer[Domain]):
    users: list[User] | None = None


class OneEmail(Answer[Email]):
    users: list[User] | None = None


class OneQuota(Answer[Quota]):
    pass


class UserQuotaId(BaseModel):
    user_name: str
    quota_id: Id | None


class UserDomains(BaseModel):
    user_name: str
    domain_ids: list[Id]


class UserEmails(BaseModel):
    user_name: str
    email_ids: list[Id]


class UserQuotaIds(Answer[list[UserQuotaId]]):
    pass


class UserDomainIds(Answer[list[UserDomains]]):
    pass


class UserEmailIds(Answer[list[UserEmails]]):
    pass


class Available(BaseModel):
    user_name: str
    quota_avail: int


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


class Decided(BaseModel):
    time: float = Field(description="UNIX epoch, UTC.")
    listener: str
    policy: str
    action: str
    reason: str
    figures: dict[str, float]
    shadow: str
    user: str
    sender: str
    recipient: str
    client: str
    instance: str
    queue_id: str
    stage: str
    detail: str
    source: str = Field(description="Where what it was decided by was read: cache, database, dns.")


class DecidedList(Answer[list[Decided]]):
    pass


class Part(BaseModel):
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


class Error(BaseModel):
    detail: str
    remarks: list[str] = []


class Fault(BaseModel):
    loc: list[str | int]
    msg: str
    type: str


class Invalid(BaseModel):
    detail: list[Fault]
