"""Models of the answers about imports."""

from __future__ import annotations

from pydantic import Field

from chapps_tw.rest.answers import Answer, Output


class Counts(Output):
    lines: int = Field(description="Lines without empty ones and comments.")
    allowed: int = Field(description="Links of users with domains and addresses that were added.")
    denied: int = Field(description="Links that were removed.")
    quotas: int = Field(description="Users whose quota was changed.")
    created: int = Field(description="Domains and addresses that were created.")


class ImportDone(Answer[Counts]):
    pass
