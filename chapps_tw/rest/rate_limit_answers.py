"""Models of the answers about the limits of ``[Limit NAME]``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output, iso_of


class RateLimit(Output):
    name: str = Field(examples=["flood"])
    per: str = Field(description="What is counted together.", examples=["client_network"])
    unit: Literal["messages", "recipients", "bytes", "distinct_recipients"]
    amount: int = Field(description="How many in the window.", examples=[100])
    window: int = Field(description="Seconds.", examples=[600])
    match: list[str] = Field(description="Conditions of requests.", examples=[["sasl_username:empty"]])
    action: str = Field(description="`refuse`, `defer`, `hold`, or an action of Postfix.", examples=["defer"])
    mode: Literal["enforce", "shadow"]
    warn_at: int = Field(description="Percentage of the amount whose use is an event; 0 is none.", examples=[80])
    applied: bool = Field(description="Whether `[RateLimitPolicy] limits` names it, or names none.")


class RateLimitList(Answer[list[RateLimit]]):
    """In the order of the configuration."""


class RateLimitUse(Output):
    name: str = Field(examples=["flood"])
    what: str = Field(description="What is counted, in normal form.", examples=["192.0.2.0/24"])
    amount: int = Field(description="How many in the window.", examples=[100])
    used: int = Field(description="How many the window contains now.", examples=[97])
    left: int = Field(description="How many more fit now.", examples=[3])
    room_at: float | None = Field(
        description="UNIX epoch at which there is room again; null if there is room, or never will be.", examples=[None]
    )
    room_at_iso: str | None = iso_of("room_at")
    last: float = Field(description="UNIX epoch of the last message counted, 0 if there is none.")
    last_iso: str | None = iso_of("last")


class OneRateLimitUse(Answer[RateLimitUse]):
    pass
