"""Input about decisions, the configuration and the documentation."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema

from chapps_tw.rest.fields import ClientOrNetwork, Text
from chapps_tw.rest.models.base import Input

# The largest whole number that every JSON reader takes as it is.
MAX_SEQUENCE = 2**53 - 1

_REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sasl_username": "alice@example.com",
    "sender": "alice@example.com",
    "recipient": "friend@example.net",
}
# As Postfix tells them (SMTPD_POLICY_README).
PROTOCOL_STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")
_MAX_ATTRIBUTE = 16384


def _attribute(value: object) -> str:
    """A name or a value as the policy port takes it: bytes that are no UTF-8 are in it as surrogates."""
    if not isinstance(value, str):
        raise ValueError("must be text")
    if len(value) > _MAX_ATTRIBUTE:
        raise ValueError(f"must have at most {_MAX_ATTRIBUTE} characters")
    if "\0" in value or "\n" in value:
        raise ValueError("must not hold line ends or NUL")
    return value


# What people write, and what Postfix calls it.
_SLIPS = {
    **dict.fromkeys(("user", "username", "login"), "sasl_username"),
    **dict.fromkeys(("client", "ip", "address"), "client_address"),
    **dict.fromkeys(("from", "mail_from"), "sender"),
    **dict.fromkeys(("to", "rcpt", "rcpt_to"), "recipient"),
    **dict.fromkeys(("helo", "ehlo"), "helo_name"),
    **dict.fromkeys(("state", "stage"), "protocol_state"),
}


def _without_slips(attributes: dict[str, str]) -> dict[str, str]:
    slips = [f"{name} ({_SLIPS[name]})" for name in attributes if name in _SLIPS]
    if slips:
        raise ValueError(f"must have the names that Postfix gives its attributes, in place of {', '.join(slips)}")
    return attributes


def _in_a_state(attributes: dict[str, str]) -> dict[str, str]:
    state = attributes.get("protocol_state")
    if state and state.upper() not in PROTOCOL_STATES:
        raise ValueError(f"protocol_state must be one of {', '.join(PROTOCOL_STATES)}")
    return attributes


# Lone surrogates are no str to pydantic.
_NAME = Annotated[str, PlainValidator(_attribute), WithJsonSchema({"type": "string"})]
_VALUE = Annotated[
    str,
    PlainValidator(_attribute),
    WithJsonSchema({"type": "string", "maxLength": _MAX_ATTRIBUTE, "pattern": r"^[^\u0000\n]*$"}),
]


class Question(Input):
    """A policy request, and the listener that it is meant for."""

    attributes: Annotated[dict[_NAME, _VALUE], AfterValidator(_without_slips), AfterValidator(_in_a_state)] = Field(
        min_length=1,
        max_length=256,
        description="What Postfix would send, as in SMTPD_POLICY_README. Without `protocol_state`, RCPT is taken.",
        examples=[_REQUEST],
        json_schema_extra={"properties": {"protocol_state": {"type": "string", "enum": ["", *PROTOCOL_STATES]}}},
    )
    listener: Text = Field("", description="The listener to ask; without one, the first that fits the request.")


class DecisionFilter(Input):
    user: Text = Field("", description="Only those about this user, however spelled.")
    sender: Text = Field("", description="Only those about mail from this address, or from any of this domain.")
    recipient: Text = Field("", description="Only those about mail to this address, or to any of this domain.")
    client: ClientOrNetwork = Field("", description="Only those about mail from this client address or network.")
    instance: Text = Field("", description="Only those of the message that Postfix gave this instance.")
    queue_id: Text = Field("", description="Only those of the message with this queue id.")
    limit: int = Field(100, ge=1, le=1000, description="How many to list at most.")
    after: int | None = Field(
        None,
        ge=0,
        le=MAX_SEQUENCE,
        description="Only those after this sequence number, oldest first: the `last_sequence` of the answer before.",
    )


class Passcode(Input):
    passcode: str = Field(min_length=1, max_length=1024, description="The passcode whose hash is in the configuration.")


class Asset(Input):
    name: Text
