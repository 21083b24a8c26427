"""Input about the live state."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from chapps_tw.rest.fields import MAX_ID, Client, DomainName, Ids, Source, Text, UserName
from chapps_tw.rest.models.base import Input

MAX_PAIRS = 10_000


class Who(Input):
    """A user by id, or by name where the id is 0 or is not found."""

    user_id: int = Field(ge=0, le=MAX_ID, description="The user's id, or 0 to ask by name.")
    name: UserName | None = Field(
        None, description="The user's name: needed when the id is 0, and used when there is no user with the id."
    )


class Authorizations(Input):
    user_ids: Ids = Field(description="Ids of users.")
    domain_ids: Ids = Field([], description="Ids of domains. Of these and `email_ids`, one must be given.")
    email_ids: Ids = Field([], description="Ids of mail addresses. Of these and `domain_ids`, one must be given.")

    @model_validator(mode="after")
    def _not_too_many(self) -> Self:
        if len(self.user_ids) * (len(self.domain_ids) + len(self.email_ids)) > MAX_PAIRS:
            raise ValueError(f"there must be at most {MAX_PAIRS} pairs of user and sender")
        return self


class Authorization(Input):
    source: Source
    user: UserName


class Tuple(Input):
    client_address: Client
    sender: Text = Field(description="The address that the mail comes from; empty for the null sender.")
    recipient: Text = Field(description="The address that the mail goes to.")


class TallyOf(Input):
    client_address: Client


class DomainOnly(Input):
    domain: DomainName
