"""The base of all input models."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Input(BaseModel):
    """The input of a route: path, query and body."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(Input):
    """The input of a route without parameters or a body."""
