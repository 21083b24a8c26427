"""Reading requests: path, query and body become one validated model."""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from chapps_tw.rest.models.base import Input
from chapps_tw.rest.routing import JSON, MAX_BODY, Refusal, Route, fault, invalid

MAX_PARAMETERS = 2000

# In a JSON document, which is parsed at one stretch.
MAX_VALUES = 5_000

# Whose entries have names.
_NAMED = ("/users/", "/domains/", "/emails/", "/quotas/")

M = TypeVar("M", bound=Input)

_EXACT = 2.0**53
_MAX_DIGITS = 1000
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]{0,18}))(?:\.0{1,9})?")


def read_input(route: Route[M], path: Mapping[str, str], query: bytes, body: bytes, content_type: str | None) -> M:
    """Return the validated input of a route.

    :param path: the path parameters, percent-encoded.
    :raises Refusal: 400 for a body that is not JSON, 415 for another content type, 422 for other errors.
    """
    found: dict[str, Any] = {name: _typed(route.input, name, [_unquoted(name, path[name])]) for name in path}
    from_query = _read_query(route, query)
    from_body = _read_body(route, body, content_type)
    for name in from_body:
        if name in from_query or name in found:
            raise invalid("body", name, "is given twice")
    try:
        return route.input.model_validate(found | from_query | from_body)
    except ValidationError as error:
        places = {**dict.fromkeys(found, "path"), **dict.fromkeys(from_query, "query")}
        # For missing fields, and for errors of the whole input.
        other = "query" if route.query_fields and not body.strip() else "body"
        refusal = _refusal(error, places, other)
        raise _with_hint(refusal, route.path) from None


def validated(model: type[M], values: dict[str, Any]) -> M:
    """Return the input of a route from values that are converted.

    :raises Refusal: 422.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _refusal(error, {}, "body") from None


def _refusal(error: ValidationError, places: Mapping[str, str], other: str) -> Refusal:
    faults = [_fault(each, places.get(str(each["loc"][0]) if each["loc"] else "", other)) for each in error.errors()]
    return Refusal(422, faults)


def _with_hint(refusal: Refusal, path: str) -> Refusal:
    """If a name was sent instead of an id, add to the error how to find the id."""
    collection = path.partition("{id}")[0]
    for each in refusal.detail if collection in _NAMED else ():
        if isinstance(each, dict) and each["loc"] == ["path", "id"] and each["type"] == "int_type":
            each["msg"] += f"; use GET {collection}by-name/NAME to find the id"
    return refusal


def _fault(error: ErrorDetails, place: str) -> dict[str, Any]:
    return {"loc": [place, *error["loc"]], "msg": _sentence(error), "type": error["type"]}


# Messages by pydantic's type of error.
_SENTENCES = {
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_type": "must be text",
    "string_unicode": "must be UTF-8 text",
    "string_too_long": "must have at most {max_length} characters",
    # The only pattern of free text. Other texts have validators of their own.
    "string_pattern_mismatch": "must not contain control characters such as tabs and line breaks",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "too_long": "must have at most {max_length} entries",
    "value_error": "{error}",
}
_TOO_SHORT = {"string_too_short": "characters", "too_short": "entries"}


def _sentence(error: ErrorDetails) -> str:
    """Return the message for an error. pydantic's own messages are for programmers."""
    kind, context = error["type"], error.get("ctx", {})
    if kind in _TOO_SHORT:
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} {_TOO_SHORT[kind]}"
    sentence = _SENTENCES.get(kind)
    return sentence.format_map(context) if sentence else error["msg"]


# --- path and query -------------------------------------------------------------------------------


def _unquoted(name: str, text: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid("path", name, "is not UTF-8") from None


def _read_query(route: Route[Any], query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
    except UnicodeDecodeError:
        raise invalid("query", "", "is not UTF-8") from None
    except ValueError:
        raise invalid("query", "", f"has more than {MAX_PARAMETERS} parameters") from None
    texts: dict[str, list[str]] = {}
    for name, text in pairs:
        texts.setdefault(name, []).append(text)
    _refuse_unknown("query", texts, route.query_fields, "is not a known parameter")
    return {name: _typed(route.input, name, found) for name, found in texts.items()}


@lru_cache(128)
def _properties(model: type[BaseModel]) -> Mapping[str, Any]:
    # Takes milliseconds: once for a model, not for each of its fields.
    properties: Mapping[str, Any] = model.model_json_schema()["properties"]
    return properties


@lru_cache(1024)
def _shape(model: type[BaseModel], name: str) -> tuple[bool, bool]:
    """Return whether a field is a list, and whether it, or its items, are integers."""
    schema = _properties(model)[name]
    for each in schema.get("anyOf", [schema]):
        if each.get("type") == "array":
            return True, each["items"].get("type") == "integer"
        if each.get("type") == "integer":
            return False, True
    return False, False


def _typed(model: type[BaseModel], name: str, texts: list[str]) -> Any:
    """Convert the text of a parameter. Text that cannot be converted is left for the model to reject."""
    is_list, is_whole = _shape(model, name)
    values = [_whole(text) if is_whole else text for text in texts]
    if is_list:
        return values
    if len(values) > 1:
        raise invalid("query", name, "is given twice")
    return values[0]


def _whole(text: str) -> int | str:
    match = _WHOLE.fullmatch(text)
    return int(match[1]) if match else text


# --- body -----------------------------------------------------------------------------------------


def _read_body(route: Route[Any], body: bytes, content_type: str | None) -> dict[str, Any]:
    if not body.strip():
        if route.body and not route.body_optional:
            raise Refusal(400, "The body is missing.")
        return {}
    media, charset = _media_type(content_type)
    if route.text is not None and media == "text/plain":
        try:
            return {route.body: route.text(body)}
        except ValueError as error:
            raise Refusal(400, f"The body is not a policy request: {error}.") from None
    if len(body) > MAX_BODY:
        raise Refusal(413, f"JSON of more than {MAX_BODY} bytes is not accepted: send it as text/plain.")
    # JSON is the default. No other type is read as JSON: any web page can submit HTML forms to this server.
    if media != JSON or charset not in ("utf-8", "utf8"):
        wanted = JSON if route.text is None else f"{JSON} or text/plain"
        raise Refusal(415, f"The body must be {wanted} in UTF-8; with curl, add -H 'Content-Type: {JSON}'.")
    value = parse_json(body)
    if not route.body:
        if value in (None, {}, []):
            return {}
        raise invalid("body", "", "is not accepted by this route")
    return _fields(route, value)


def _media_type(content_type: str | None) -> tuple[str, str]:
    if content_type is None:
        return JSON, "utf-8"
    media, *parameters = content_type.split(";")
    charset = "utf-8"
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset


def _fields(route: Route[Any], value: Any) -> dict[str, Any]:
    if route.body != "*":
        if route.body == "name" and isinstance(value, dict):
            return _known(route, value)
        return {} if value is None and route.body_optional else {route.body: value}
    if value is None and route.body_optional:
        return {}
    if not isinstance(value, dict):
        raise Refusal(422, [{"loc": ["body"], "msg": "must be an object", "type": "dict_type"}])
    if route.wrapped and isinstance(value.get(route.wrapped[0]), dict):
        return _unwrapped(route, *route.wrapped, value)
    return _known(route, value)


def _unwrapped(route: Route[Any], name: str, model: type[Input], value: dict[str, Any]) -> dict[str, Any]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        raise _refusal(error, {}, "body") from None
    return {**value[name], **{key: each for key, each in value.items() if key != name}}


def _known(route: Route[Any], value: dict[str, Any]) -> dict[str, Any]:
    _refuse_unknown("body", value, route.other_fields, "is not a known field")
    return value


def _refuse_unknown(where: str, given: Iterable[str], known: Collection[str], sentence: str) -> None:
    """Raise a 422 that lists all unknown names."""
    faults = [fault(where, name, sentence) for name in given if name not in known]
    if faults:
        raise Refusal(422, faults)


def parse_json(body: bytes) -> Any:
    """Parse JSON (RFC 8259) strictly.

    :raises Refusal: 400, also for duplicate keys, NaN, numbers of thousands of digits, deep nesting, and more than
        :data:`MAX_VALUES` values.
    """
    # Counting takes a hundredth of the time of parsing.
    if body.count(b",") > MAX_VALUES:
        raise Refusal(400, f"The body has more than {MAX_VALUES} values, or commas within strings.")
    if body.startswith(BOM_UTF8):
        raise Refusal(400, "The body begins with a byte order mark, which JSON does not allow.")
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_once,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError:
        raise Refusal(400, "The body is not UTF-8.") from None
    except RecursionError:
        raise Refusal(400, "The body is nested too deeply.") from None
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"a number has more than {_MAX_DIGITS} digits")
    return int(text)


def _number(text: str) -> int | float:
    # 5.0 is an integer in JSON Schema, and some clients have no other number type.
    number = float(text)
    return int(number) if abs(number) <= _EXACT and number.is_integer() else number


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
