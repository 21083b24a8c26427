"""Models of the answers about listeners."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output, iso_of


class StageCount(Output):
    stage: str = Field(description="Postfix's protocol_state; `other` for one that it does not document.")
    with_login: int = Field(description="Requests about clients that had logged in.")
    without_login: int = Field(description="Requests about other clients.")


class Peer(Output):
    peer: str = Field(description="The address of a client of the listener, or `a unix socket`.")
    at: float = Field(description="When it last asked; UNIX epoch.", examples=[1790000000.25])
    at_iso: str | None = iso_of("at")


class ListenerUse(Output):
    listener: str = Field(examples=["outbound"])
    listen: str = Field(description="Twisted endpoint.", examples=["tcp:10225:interface=127.0.0.1"])
    policies: list[str]
    requests: int = Field(description="Requests that were answered since the start.")
    since: float | None = Field(description="When the first one was answered; UNIX epoch.", examples=[1790000000.25])
    since_iso: str | None = iso_of("since")
    at: float | None = Field(description="When the last one was answered; UNIX epoch.", examples=[1790000000.25])
    at_iso: str | None = iso_of("at")
    stages: list[StageCount]
    peers: list[Peer] = Field(description="The last clients of the listener.")
    warnings: list[str] = Field(description="Policies that are never asked where they apply.")


class ListenerList(Answer[list[ListenerUse]]):
    pass
