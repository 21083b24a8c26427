"""Models of the answers about notices."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output


class Told(Output):
    channel: str = Field(description="admin or webhook.", examples=["admin"])
    sent: bool = Field(description="Whether the relay or the webhook took it.")
    problem: str = Field(description="Why it was not taken; else empty.", examples=[""])


class NoticeTest(Answer[list[Told]]):
    """What became of a test."""
