"""Models of the answers about limits."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output, iso_of
from chapps_tw.rest.fields import Id


class Limit(Output):
    level: str = Field(
        description="Whose limit it is: the user's own (user), that of each user of the domain (domain), the one of "
        "default_quota (default), or shared by the users of the domain (domain pool).",
        examples=["user"],
    )
    quota: str = Field(description="Name of the quota that it belongs to.", examples=["basic"])
    name: str = Field(description="Empty for the quota's own number.", examples=["hour"])
    unit: str = Field(examples=["recipients"])
    window: float = Field(description="Seconds of the rolling window.", examples=[3600])
    action: str = Field(description="What is done beyond it: refuse, defer or hold.", examples=["refuse"])
    amount: int | None = Field(description="Overrides included; null while an override lifts it.", examples=[50])
    used: int = Field(description="What the window contains now.", examples=[50])
    left: int | None = Field(description="Null while an override lifts it.", examples=[0])
    room_at: float | None = Field(
        description="If nothing is left, when the oldest message leaves the window; UNIX epoch.",
        examples=[1790000000.25],
    )
    room_at_iso: str | None = iso_of("room_at")


class ActiveOverride(Output):
    about: str = Field(description="user or domain.", examples=["user"])
    id: Id
    kind: str = Field(description="extra, unlimited or suspended.", examples=["extra"])
    value: int = Field(description="Of extra, in the unit of the limit.")
    limit: str = Field(description="The only limit that it applies to, or empty.")
    begin: float = Field(description="UNIX epoch.")
    begin_iso: str | None = iso_of("begin")
    until: float = Field(description="UNIX epoch.")
    until_iso: str | None = iso_of("until")
    reason: str
    action: str = Field(description="Of suspended: refuse or defer.")


class LimitsOfUser(Output):
    user: str = Field(description="In normal form.", examples=["alice@example.com"])
    known: bool = Field(description="Whether the database contains the user.")
    may_send: bool = Field(description="False if the user has no quota of any level, or is suspended.")
    domain: str = Field(description="The domain whose quotas apply; empty if none is known.", examples=["example.com"])
    limits: list[Limit]
    overrides: list[ActiveOverride] = Field(description="Those in force.")


class LimitsOfPool(Output):
    domain: str = Field(examples=["example.com"])
    limits: list[Limit]
    overrides: list[ActiveOverride] = Field(description="Those in force.")


class Event(Output):
    kind: str = Field(description="near_limit or at_limit.", examples=["near_limit"])
    space: str = Field(description="The kind of account: oqp for users, pool for domains.", examples=["oqp"])
    account: str = Field(description="The user or domain; a very long one is cut.", examples=["alice@example.com"])
    limit: str = Field(description="Name of the limit, or of the quota for its own number.", examples=["basic"])
    level: str = Field(examples=["user"])
    used: int = Field(examples=[80])
    amount: int = Field(examples=[100])
    window: float = Field(description="Seconds.", examples=[86400])
    at: float = Field(description="UNIX epoch.", examples=[1790000000.25])
    at_iso: str | None = iso_of("at")
    unit: str = Field("", description="What the limit counts.", examples=["messages"])


class UserLimits(Answer[LimitsOfUser]):
    pass


class PoolLimits(Answer[LimitsOfPool]):
    pass


class EventList(Answer[list[Event]]):
    pass
