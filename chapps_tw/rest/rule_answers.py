"""Models of the answers about limits, overrides, exemptions and the audit trail."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output, Quota, iso_of
from chapps_tw.rest.fields import Id


class LimitOfQuota(Output):
    id: Id
    quota: Id = Field(description="Id of its quota.")
    name: str = Field(examples=["hour"])
    unit: Literal["messages", "recipients", "bytes", "distinct_recipients"]
    amount: int = Field(description="How many in the window.", examples=[50])
    window: int = Field(description="Seconds.", examples=[3600])
    action: Literal["refuse", "defer", "hold"]


class LimitList(Answer[list[LimitOfQuota]]):
    pass


class OneLimit(Answer[LimitOfQuota]):
    pass


class OneQuota(Answer[Quota]):
    """A quota. After a change, its limits are null."""

    limits: list[LimitOfQuota] | None = Field(None, description="Its limits, besides its own number.")


class Override(Output):
    id: Id
    user_id: Id | None = Field(description="Id of the user, null if it is about a domain.")
    user: str | None = Field(description="Name of the user.")
    domain_id: Id | None = Field(description="Id of the domain, null if it is about a user.")
    domain: str | None = Field(description="Name of the domain.")
    kind: Literal["extra", "unlimited", "suspended"]
    value: int = Field(description="With `extra`: how many more.")
    limit: str = Field(description="Name of the only limit that it applies to; empty for all.")
    begin: float = Field(description="UNIX epoch.")
    begin_iso: str | None = iso_of("begin")
    until: float = Field(description="UNIX epoch.")
    until_iso: str | None = iso_of("until")
    active: bool = Field(description="Whether it is in force now.")
    reason: str
    action: Literal["refuse", "defer", ""] = Field(description="With `suspended`: what happens to mail.")
    author: str = Field(description="Name of the token that it was created with.")
    created: float = Field(description="UNIX epoch.")
    created_iso: str | None = iso_of("created")


class OverrideList(Answer[list[Override]]):
    pass


class OneOverride(Answer[Override]):
    pass


class Exemption(Output):
    id: Id
    kind: Literal["client", "sender", "sender_domain", "recipient"]
    value: str = Field(description="In normal form.", examples=["192.0.2.0/24"])
    scope: str = Field(examples=["greylisting"])
    until: float = Field(description="UNIX epoch.")
    until_iso: str | None = iso_of("until")
    active: bool = Field(description="Whether it is in force now.")
    reason: str
    author: str = Field(description="Name of the token that it was created with.")
    created: float = Field(description="UNIX epoch.")
    created_iso: str | None = iso_of("created")


class ExemptionList(Answer[list[Exemption]]):
    pass


class OneExemption(Answer[Exemption]):
    pass


class Event(Output):
    id: int
    at: float = Field(description="UNIX epoch.")
    at_iso: str | None = iso_of("at")
    kind: str = Field(examples=["suspended"])
    node: str = Field(description="Name of the node that noticed it first; empty if somebody has done it.")
    author: str = Field(description="Name of the token with which somebody has done it, else empty.")
    name: str = Field(
        description="The user, the domain, the client ... that it is about; the dependency; the node; the channel of "
        "notices.",
        examples=["alice@example.com"],
    )
    detail: str = Field(description="In words.", examples=["until 2026-10-01T08:00:00+00:00: password stolen"])
    figures: dict[str, Any] = Field(description="Of limits: what is used of which limit.")


class EventTrail(Answer[list[Event]]):
    """Newest first."""


class AuditRecord(Output):
    id: int
    at: float = Field(description="UNIX epoch.")
    at_iso: str | None = iso_of("at")
    author: str = Field(description="Name of the token; empty for changes without a token.")
    action: str = Field(
        description="`create`, `update`, `delete`, `link`, `unlink` or `import`; of live state the method of the "
        "request.",
        examples=["update"],
    )
    kind: str = Field(description="Kind of entry, or path of the live state.", examples=["users"])
    entry: int | None = Field(description="Id of the entry; null for several at once, and for live state.")
    name: str = Field(
        description="Name of the entry; of the user or the domain of an override, of the quota of a limit, the value "
        "of an exemption. Empty for several entries at once."
    )
    before: dict[str, Any] | None = Field(description="What was changed, as it was before.")
    after: dict[str, Any] | None = Field(
        description="The same after the change. Of live state: the parameters of the request."
    )


class AuditTrail(Answer[list[AuditRecord]]):
    """Newest first."""
