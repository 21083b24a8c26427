"""The nodes that share the state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output, iso_of
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routing import Reply, Route

List = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


class Node(Output):
    name: str = Field(description="`[CHAPPS] node`, or the host name.", examples=["mx1"])
    api: str = Field(description="URL of its HTTP API as seen from there; empty if it has none.")
    version: str = Field(examples=["1.0.0"])
    processes: int = Field(description="Processes that answer Postfix.", examples=[1])
    started: float = Field(description="UNIX epoch.", examples=[1790000000.25])
    started_iso: str | None = iso_of("started")
    this: bool = Field(description="Whether it is the node that answers.")


class NodeList(Answer[list[Node]]):
    pass


def routes(nodes: List) -> Iterator[Route[Any]]:
    """Yield all routes of this family."""

    async def show(_: Nothing) -> Reply:
        return Reply([with_iso(each, "started") for each in await nodes()])

    yield Route(
        "GET", "/nodes/", "List the nodes that share the state", show, answer=NodeList, tag="insight",
        note="A node that has ended is listed for up to 35 s. With an embedded state, a node knows only itself.",
    )  # fmt: skip
