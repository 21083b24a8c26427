"""Input of the routes for decisions, the configuration and the documentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from chapps_tw.mail.request import PROTOCOL_STATES
from chapps_tw.rest.fields import ClientOrNetwork, Text
from chapps_tw.rest.models.base import Input

# The largest integer that every JSON parser reads exactly.
MAX_SEQUENCE = 2**53 - 1

_REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sasl_username": "alice@example.com",
    "sender": "alice@example.com",
    "recipient": "friend@example.net",
}
_MAX_ATTRIBUTE = 16384


def _attribute(value: object) -> str:
    """Check a name or a value of an attribute. Bytes that are not UTF-8 are represented as surrogates."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > _MAX_ATTRIBUTE:
        raise ValueError(f"must have at most {_MAX_ATTRIBUTE} characters")
    if "\0" in value or "\n" in value:
        raise ValueError("must not contain line breaks or NUL")
    return value


# Common misnomers, and the names that Postfix uses.
_MISNOMERS = {
    **dict.fromkeys(("user", "username", "login"), "sasl_username"),
    **dict.fromkeys(("client", "ip", "address"), "client_address"),
    **dict.fromkeys(("from", "mail_from"), "sender"),
    **dict.fromkeys(("to", "rcpt", "rcpt_to"), "recipient"),
    **dict.fromkeys(("helo", "ehlo"), "helo_name"),
    **dict.fromkeys(("state", "stage"), "protocol_state"),
}


def _named_as_in_postfix(attributes: dict[str, str]) -> dict[str, str]:
    misnomers = [f"{name} (use {_MISNOMERS[name]})" for name in attributes if name in _MISNOMERS]
    if misnomers:
        raise ValueError(f"must have the attribute names of Postfix: {', '.join(misnomers)}")
    return attributes


def _with_known_state(attributes: dict[str, str]) -> dict[str, str]:
    state = attributes.get("protocol_state")
    if state and state.upper() not in PROTOCOL_STATES:
        raise ValueError(f"protocol_state must be one of {', '.join(PROTOCOL_STATES)}")
    return attributes


# pydantic does not accept lone surrogates in a str.
_NAME = Annotated[str, PlainValidator(_attribute), WithJsonSchema({"type": "string"})]
_VALUE = Annotated[
    str,
    PlainValidator(_attribute),
    WithJsonSchema({"type": "string", "maxLength": _MAX_ATTRIBUTE, "pattern": r"^[^\u0000\n]*$"}),
]


class Explain(Input):
    """A policy request, and the listener to explain it for."""

    attributes: Annotated[
        dict[_NAME, _VALUE], AfterValidator(_named_as_in_postfix), AfterValidator(_with_known_state)
    ] = Field(
        min_length=1,
        max_length=256,
        description="The attributes as Postfix sends them (SMTPD_POLICY_README). `protocol_state` is RCPT by default.",
        examples=[_REQUEST],
        json_schema_extra={"properties": {"protocol_state": {"type": "string", "enum": ["", *PROTOCOL_STATES]}}},
    )
    listener: Text = Field("", description="The listener; by default the first one that accepts the request.")


class DecisionFilter(Input):
    user: Text = Field("", description="Only decisions about this user, in any spelling.")
    sender: Text = Field("", description="Only decisions about mail from this address or domain.")
    recipient: Text = Field("", description="Only decisions about mail to this address or domain.")
    client: ClientOrNetwork = Field("", description="Only decisions about mail from this client address or network.")
    instance: Text = Field("", description="Only decisions about the message with this `instance`.")
    queue_id: Text = Field("", description="Only decisions about the message with this queue id.")
    limit: int = Field(100, ge=1, le=1000, description="The maximum number of decisions.")
    after: int | None = Field(
        None,
        ge=0,
        le=MAX_SEQUENCE,
        description="Only decisions after this number, oldest first: the `last_sequence` of the previous answer.",
    )


class Passcode(Input):
    passcode: str = Field(min_length=1, max_length=1024, description="The passcode whose hash is in the configuration.")


class Asset(Input):
    name: Text
