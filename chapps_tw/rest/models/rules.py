"""Input of the routes for limits, overrides, exemptions and the audit trail."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from chapps_tw.interfaces.events import KINDS
from chapps_tw.interfaces.writable_book import MAX_AMOUNT, MAX_REASON, MAX_RULE_NAME
from chapps_tw.rest.exemptions import SCOPE, checked_scope, normal_value
from chapps_tw.rest.fields import PLAIN, UNPADDED, UNPADDED_PLAIN, DomainName, Flag, Id, Ids, Text, UserName
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.models.book import ById, Page
from chapps_tw.rest.moments import EARLIER, LATER, Earlier, Later, Window

MAX_RECORDS = 1000

RuleName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_RULE_NAME,
        pattern=PLAIN,
        description="A name, unique within the quota. Refusals, log lines and overrides use it.",
        examples=["hour"],
        json_schema_extra=UNPADDED_PLAIN,
    ),
    UNPADDED,
]
LimitUnit = Annotated[
    Literal["messages", "recipients", "bytes", "distinct_recipients"],
    Field(
        description="`messages`, `recipients` (each recipient of a message), `bytes` (size times recipients) or "
        "`distinct_recipients` (different recipients of all messages)."
    ),
]
Amount = Annotated[int, Field(ge=0, le=MAX_AMOUNT, description="How many in the window.", examples=[50])]
LimitAction = Annotated[
    Literal["refuse", "defer", "hold"],
    Field(description="What happens to a message above the limit: it is refused, deferred, or held in Postfix' queue."),
]
OverrideKind = Annotated[
    Literal["extra", "unlimited", "suspended"],
    Field(description="`extra`: `value` more than the limit; `unlimited`: no limit; `suspended`: may not send."),
]
Extra = Annotated[
    int,
    Field(ge=1, le=MAX_AMOUNT, description="With `extra`: how many more, in the unit of the limit.", examples=[500]),
]
OnlyLimit = Annotated[
    str,
    Field(
        max_length=MAX_RULE_NAME,
        pattern=PLAIN,
        description="Name of the only limit that it applies to; empty for all (`extra`: those that count messages or "
        "recipients).",
    ),
]
SuspendedAction = Annotated[
    Literal["refuse", "defer"], Field(description="With `suspended`: whether mail is refused or deferred.")
]
Reason = Annotated[str, Field(max_length=MAX_REASON, pattern=PLAIN, description="For administrators.")]
ShownReason = Annotated[
    str, Field(max_length=MAX_REASON, pattern=PLAIN, description="For administrators; if suspended, also for the user.")
]
ExemptionKind = Annotated[
    Literal["client", "sender", "sender_domain", "recipient"], Field(description="What `value` is.")
]
ExemptionValue = Annotated[
    str,
    Field(
        min_length=1,
        max_length=320,
        description="`client`: an address or a network. `sender`, `recipient`: a mail address. `sender_domain`: a "
        "domain; with a dot before it, its subdomains too.",
        examples=["192.0.2.0/24"],
    ),
]
Scope = Annotated[
    str,
    AfterValidator(checked_scope),
    Field(
        description="`spf`, `greylisting`, `sender_authorization`, or `limit:NAME` of a `[Limit NAME]`.",
        examples=["greylisting"],
        json_schema_extra={"pattern": f"^{SCOPE}$"},
    ),
]
Active = Annotated[Flag, Field(description="Whether to list only those that are not over.")]


# --- limits ---------------------------------------------------------------------------------------


class LimitIds(Input):
    limit_ids: Ids = Field(description="Ids of limits.")


class QuotaLimitListing(Page, ById):
    pass


class NewLimit(ById):
    """A limit of a quota, besides the quota's own number."""

    name: RuleName
    unit: LimitUnit = "recipients"
    amount: Amount
    window: Window
    action: LimitAction = "refuse"


class ChangedLimit(ById):
    """Changes to a limit. Omitted fields are left unchanged."""

    name: RuleName | None = None
    unit: LimitUnit | None = None
    amount: Amount | None = None
    window: Window | None = None
    action: LimitAction | None = None


# --- overrides ------------------------------------------------------------------------------------


class About(Input):
    """The user or the domain of an override."""

    user_id: Id | None = Field(None, description="Id of the user.")
    user: UserName | None = Field(None, description="Name of the user, instead of the id.")
    domain_id: Id | None = Field(None, description="Id of the domain.")
    domain: DomainName | None = Field(None, description="Name of the domain, instead of the id.")

    @property
    def given(self) -> list[str]:
        """Names of the fields that are set."""
        return [name for name in About.model_fields if getattr(self, name) is not None]


class OverrideListing(Page, About):
    active: Active = False

    @model_validator(mode="after")
    def _one_at_most(self) -> Self:
        if len(self.given) > 1:
            raise ValueError(f"must have only one of {', '.join(About.model_fields)}")
        return self


class OverrideIds(Input):
    override_ids: Ids = Field(description="Ids of overrides.")


class NewOverride(About):
    """A temporary exception of one user or one domain."""

    kind: OverrideKind
    value: Extra | None = None
    limit: OnlyLimit = ""
    begin: Later | None = Field(None, description=f"When it begins; by default now. {LATER}")
    until: Later
    reason: ShownReason = ""
    action: SuspendedAction | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if len(self.given) != 1:
            problems.append(f"must have exactly one of {', '.join(About.model_fields)}")
        if (self.value is not None) != (self.kind == "extra"):
            problems.append("must have a value with kind extra, and only then")
        if self.action is not None and self.kind != "suspended":
            problems.append("must have an action only with kind suspended")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ChangedOverride(ById):
    """Changes to an override. Omitted fields are left unchanged."""

    value: Extra | None = None
    limit: OnlyLimit | None = None
    begin: Later | None = None
    until: Later | None = None
    reason: ShownReason | None = None
    action: SuspendedAction | None = None


# --- exemptions -----------------------------------------------------------------------------------


class ExemptionListing(Page):
    active: Active = False


class ExemptionIds(Input):
    exemption_ids: Ids = Field(description="Ids of exemptions.")


class NewExemption(Input):
    """Who is exempt from a policy or a limit until a date."""

    kind: ExemptionKind
    value: ExemptionValue
    scope: Scope
    until: Later
    reason: Reason = ""

    @field_validator("value")
    @classmethod
    def _fits_kind(cls, value: str, info: ValidationInfo) -> str:
        kind = info.data.get("kind")
        return normal_value(kind, value) if kind else value


class ChangedExemption(ById):
    """Changes to an exemption. Omitted fields are left unchanged."""

    scope: Scope | None = None
    until: Later | None = None
    reason: Reason | None = None


# --- events ----------------------------------------------------------------------------------------


def _known_kind(kind: str) -> str:
    if kind and kind not in KINDS:
        raise ValueError("must be one of " + ", ".join(KINDS))
    return kind


class EventFilter(Input):
    kind: Annotated[str, AfterValidator(_known_kind)] = Field(
        "", description="Only events of this kind.", json_schema_extra={"enum": ["", *KINDS]}
    )
    name: Text = Field("", description="What they are about, exactly as in the event.")
    node: Text = Field("", description="Name of the node that noticed them first.")
    since: Earlier | None = Field(None, description=f"The earliest time. {EARLIER}")
    until: Earlier | None = Field(None, description=f"The time before which they are. {EARLIER}")
    before: int = Field(
        0, ge=0, le=2**53, description="Only events with a smaller id: for the next page, the last id of this one."
    )
    limit: int = Field(100, ge=1, le=MAX_RECORDS, description="The maximum number of events.")


# --- audit trail ----------------------------------------------------------------------------------


class AuditFilter(Input):
    author: Text | None = Field(None, description="Name of the token; empty for changes without a token.")
    kind: Text = Field("", description="Kind of entry, such as `users`, or of live state, such as `live/quota`.")
    name: Text = Field("", description="Name of the entry, exactly as in the record.")
    since: Earlier | None = Field(None, description=f"The earliest time. {EARLIER}")
    until: Earlier | None = Field(None, description=f"The time before which they are. {EARLIER}")
    before: int = Field(
        0, ge=0, le=2**53, description="Only records with a smaller id: for the next page, the last id of this one."
    )
    limit: int = Field(100, ge=1, le=MAX_RECORDS, description="The maximum number of records.")
