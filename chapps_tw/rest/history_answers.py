"""Models of the answers about the history."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Decided, Output, iso_of


class KeptDecision(Decided):
    id: str = Field(description="Unique. Those of later decisions sort after it.", examples=["64f3a9c4a1a01c00"])
    node: str = Field(description="Name of the node that decided (`[CHAPPS] node`).")
    refused: bool = Field(description="Whether the mail was refused, deferred or discarded.")


class KeptDecisionList(Answer[list[KeptDecision]]):
    """Newest first."""

    next: str | None = Field(description="Use it as `before` for the next page; null if there is none.")


class DecisionGroup(Output):
    key: str = Field(
        description="The user, the reason, or the network. Empty for hours and days, and for decisions without a user "
        "or a client address.",
        examples=["alice@example.com"],
    )
    start: float | None = Field(description="Of hours and days: UNIX epoch of their start.", examples=[None])
    start_iso: str | None = iso_of("start")
    decisions: int
    refused: int = Field(description="How many of them refused, deferred or discarded mail.")
    refused_share: float = Field(description="The same as a share, 0 to 1.")
    senders: int | None = Field(description="Of users and networks: different sender addresses; null if not counted.")
    recipients: int | None = Field(
        description="Of users and networks: different recipient addresses; null if not counted."
    )


class DecisionCounts(Answer[list[DecisionGroup]]):
    """Hours and days oldest first, others by number of decisions, the largest first."""

    counted_since: float | None = Field(
        description="UNIX epoch: how far back was counted; null for everything that was wanted.", examples=[None]
    )
    counted_since_iso: str | None = iso_of("counted_since")
