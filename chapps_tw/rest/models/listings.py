"""Input of the lists of users, domains, emails and quotas, which can nest what is associated with the entries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema, create_model

from chapps_tw.rest.models.base import Input
from chapps_tw.rest.models.book import LinkedListing, Listing

ASSOCIATIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "users": ("quota", "domains", "emails"),
    "domains": ("users",),
    "emails": ("users",),
    "quotas": ("limits", "users"),
}
"""The associations of each kind of entry."""

# A keyword cannot be the name of a field in a class statement.
WITH: Final = "with"


def wanted(page: Input) -> tuple[str, ...]:
    """Return the associations to nest."""
    found: tuple[str, ...] = getattr(page, WITH)
    return found


def _listing(base: type[Listing], kind: str) -> type[Listing]:
    """Return the model of a list of a kind."""
    names = ASSOCIATIONS[kind]
    one = "|".join(names)

    def parse(value: Any) -> tuple[str, ...]:
        given = value.split(",") if isinstance(value, str) else []
        if not given or not set(given) <= set(names):
            raise ValueError(f"must be names of {', '.join(names)}, separated by commas")
        return tuple(dict.fromkeys(given))

    schema = WithJsonSchema({"type": "string", "pattern": f"^({one})(,({one}))*$", "examples": [",".join(names)]})
    about = f"What to nest in each entry: {', '.join(f'`{name}`' for name in names)}; several separated by commas."
    nested: Any = Field(default_factory=tuple, description=about)
    fields: dict[str, Any] = {WITH: (Annotated[tuple[str, ...], PlainValidator(parse), schema], nested)}
    return create_model(f"{base.__name__}Of{kind.title()}", __base__=base, **fields)


class UserListing(Listing):
    near: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Only users who have used at least so many percent of a limit, those with the largest share first, "
        "whatever `sort` says. Each has these `limits`, and its `domains`. Users are noticed when a message brings "
        "them to `warn_at` percent of a limit; `remarks` says who was looked at.",
    )


LISTINGS: Final = {kind: _listing(UserListing if kind == "users" else Listing, kind) for kind in ASSOCIATIONS}
"""Of all entries of a kind."""

LINKED_LISTINGS: Final = {kind: _listing(LinkedListing, kind) for kind in ASSOCIATIONS}
"""Of the entries of a kind that are linked to another."""
