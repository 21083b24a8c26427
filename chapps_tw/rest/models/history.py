"""Input of the routes for the history."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema

from chapps_tw.interfaces.history import MAX_FOUND, GroupBy
from chapps_tw.mail.addresses import MAX_EMAIL
from chapps_tw.rest.fields import PLAIN, ClientOrNetwork, Flag, Text
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.moments import EARLIER, Earlier

_BY = tuple(map(str, GroupBy))


def _matching(pattern: str, expected: str, most: int) -> tuple[AfterValidator, WithJsonSchema]:
    """Return a validator for text, and its schema. The empty text is valid."""
    full = f"({pattern}){{0,{most}}}"

    def check(text: str) -> str:
        if not re.fullmatch(full, text):
            raise ValueError(f"must be {expected}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": f"^{full}$"})


def _address(text: str) -> str:
    if text.count("@") > 1 and text.startswith("@"):
        raise ValueError("must be an address, a domain as @example.com, or a part of an address")
    return text


def _one_of(*names: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in names:
            raise ValueError(f"must be one of {', '.join(names)}")
        return text

    return check


Code = Annotated[str, *_matching("[A-Za-z0-9_]", "a reason code of letters, digits and underscores", 64)]
Verb = Annotated[str, *_matching("[A-Za-z0-9_]", "the first word of an action, as REJECT or 450", 32)]
QueueId = Annotated[str, *_matching("[A-Za-z0-9]", "a queue id of letters and digits", 64)]
Instance = Annotated[str, *_matching("[A-Za-z0-9._-]", "an instance as Postfix sends it", 128)]
AddressOrPart = Annotated[
    str,
    AfterValidator(_address),
    Field(max_length=MAX_EMAIL, pattern=PLAIN, json_schema_extra={"pattern": r"^(@?[^\u0000-\u001f\u007f-\u009f@]*)$"}),
]
By = Annotated[str, AfterValidator(_one_of(*_BY)), WithJsonSchema({"type": "string", "enum": list(_BY)})]
Cursor = Annotated[
    str,
    *_matching("[0-9a-f]", "`next` of the page before", 16),
]

_ADDRESS = "an address; with an @ before it, all addresses of a domain; or a part of an address, which takes longer"


class HistoryFilter(Input):
    """Which decisions."""

    user: Text = Field("", description="Only decisions about this user, in any spelling.")
    sender: AddressOrPart = Field("", description=f"Only mail from this sender: {_ADDRESS}.", examples=["@example.com"])
    recipient: AddressOrPart = Field("", description=f"Only mail to this recipient: {_ADDRESS}.")
    client: ClientOrNetwork = Field("", description="Only mail from this client address or network.")
    queue_id: QueueId = Field("", description="Only the message with this queue id.")
    instance: Instance = Field("", description="Only the message with this `instance`.")
    listener: Text = Field("", description="Only decisions of this listener.")
    policy: Text = Field("", description="Only decisions of this policy.")
    reason: Code = Field("", description="Only decisions with this reason.")
    action: Verb = Field("", description="Only decisions with this action: its first word, such as `REJECT`.")
    node: Text = Field("", description="Only decisions of this node.")
    since: Earlier | None = Field(None, description=f"The earliest time. {EARLIER}")
    until: Earlier | None = Field(None, description=f"The time before which they are. {EARLIER}")
    refused: Flag = Field(False, description="Only mail that was refused, deferred or discarded.")


class HistorySearch(HistoryFilter):
    before: Cursor = Field("", description="For the next page: `next` of this one.")
    limit: int = Field(100, ge=1, le=MAX_FOUND, description="The maximum number of decisions.")


class HistoryCounts(HistoryFilter):
    by: By = Field(description="What the decisions are grouped by. Hours and days are in UTC.", examples=["user"])
    limit: int = Field(
        100,
        ge=1,
        le=MAX_FOUND,
        description="The maximum number of groups: the newest hours or days, or the largest.",
    )
