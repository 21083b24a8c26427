"""Input of the route that imports permissions."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainValidator, WithJsonSchema
from pydantic.config import JsonDict

from chapps_tw.rest.fields import Flag
from chapps_tw.rest.models.base import Input

# A comment or an operation, and a text with at least one of them.
_ITEM = r"(#[^\n]*|(allow|deny|quota):[^:\n]+:[^:\n]+)"
LINES = rf"^[ \t\r\n]*{_ITEM}(\n[ \t]*{_ITEM}?[ \t\r]*)*$"


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text")
    if not value.strip():
        raise ValueError("must not be empty")
    return value.encode("utf-8", "replace")


_SCHEMA: JsonDict = {"type": "string", "pattern": LINES, "examples": ["allow:alice:example.com\n"]}


class Import(Input):
    """Lines, and whether to create what they name."""

    lines: Annotated[bytes, PlainValidator(_bytes), WithJsonSchema(_SCHEMA)] = Field(
        description="Lines `allow:USER:DOMAIN-OR-ADDRESS`, `deny:USER:DOMAIN-OR-ADDRESS` or `quota:USER:QUOTA`; "
        "empty lines and lines that begin with `#` are ignored.",
    )
    create: Flag = Field(
        False, description="Whether domains and addresses of `allow` are created if they do not exist."
    )
