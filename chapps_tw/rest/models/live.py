"""Input of the routes for the live state."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chapps_tw.policies.events import MAX_EVENTS
from chapps_tw.rest.fields import MAX_ID, MAX_IDS, Client, DomainName, Ids, Source, Text, UserName
from chapps_tw.rest.models.base import Input

MAX_PAIRS = 10_000


class Who(Input):
    """A user by id, or by name if the id is 0 or does not exist."""

    user_id: int = Field(ge=0, le=MAX_ID, description="The id of the user, or 0 to use the name.")
    name: UserName | None = Field(
        None, description="The name of the user. Required if the id is 0, and used if the id does not exist."
    )


class UserNames(Input):
    names: Annotated[list[UserName], Field(min_length=1, max_length=MAX_IDS)] = Field(description="Names of users.")


class Authorizations(Input):
    user_ids: Ids = Field(description="Ids of users.")
    domain_ids: Ids = Field([], description="Ids of domains. This or `email_ids` is required.")
    email_ids: Ids = Field([], description="Ids of mail addresses. This or `domain_ids` is required.")

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
    sender: Text = Field(description="The sender address; empty for the null sender.")
    recipient: Text = Field(description="The recipient address.")


class TallyOf(Input):
    client_address: Client


class DomainOnly(Input):
    domain: DomainName


class UserOnly(Input):
    user: UserName


class LimitsOf(UserOnly):
    domain: DomainName | None = Field(None, description="The domain to use if the user is no address.")
    sender: Text = Field("", description="The sender address whose domain to use if the user is no address.")


class EventsWanted(Input):
    kind: Literal["", "near_limit", "at_limit"] = Field("", description="Only events of this kind.")
    limit: int = Field(100, ge=1, le=MAX_EVENTS, description="The number of events to return.")


class Counted(Input):
    """What a limit of the configuration counts."""

    name: str = Field(min_length=1, max_length=64, description="The name of the limit.", examples=["flood"])
    what: Text = Field(min_length=1, description="What it counts.", examples=["192.0.2.7"])
