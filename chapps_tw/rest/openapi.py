"""The OpenAPI 3.1 document, generated from the routes and their models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from chapps_tw.mail.decision import Reason, ReasonCode
from chapps_tw.rest import answers
from chapps_tw.rest.routing import JSON, Link, Route

_REF = "#/components/schemas/{model}"
_EVERYWHERE = (400, 401, 403, 413, 415, 422, 503)
_MEANINGS = {
    200: "Done.",
    307: "Redirect: see the Location header.",
    201: "Created.",
    400: "A required part is missing, or the body cannot be parsed.",
    401: "The token is missing or invalid; or the passcode is wrong, or none is set.",
    403: "The scope of the token does not include this, or the Host header is not accepted.",
    404: "Not found.",
    409: "The name is taken; or an id to link to does not exist.",
    413: "The body is too large.",
    415: "The Content-Type of the body is not one of those described, or the charset is not UTF-8.",
    422: "Validation failed; each error is listed.",
    503: "The state store or the database is unavailable.",
}
_ABOUT = """
A successful answer is an object with `response`, `version`, `timestamp` and `remarks`, a list of sentences for people.
An error is an object with `detail`: a sentence, or for 422 a list of errors.

Ids are positive integers, assigned by the service. A body is JSON in UTF-8, with `Content-Type: application/json`.
Unknown fields and parameters are refused, as are values of another type. To pass a list in a query, repeat the
parameter: `?user_ids=1&user_ids=2`. The trailing slash of a path is optional. Names in a path must be
percent-encoded, including slashes.

Times are epoch seconds (UTC). Beside each, a field whose name ends in `_iso` has the same as text (ISO 8601), null
for none.

A change is atomic, and takes effect on every node with the next policy request.

To try requests on the page `/docs`, click *Authorize* and enter the token there too: the password that the browser
asks for opens only the page itself.
"""
_TAGS = {
    "users": "Users, with their quota and the domains and mail addresses that they may send from.",
    "domains": "Domains that users may send from. For mail that is received, two flags say whether SPF and "
    "greylisting apply to the domain.",
    "emails": "Single mail addresses that users may send from, without the rest of their domain.",
    "quotas": "Limits of transmissions in the rolling interval. Users with the same quota are counted separately.",
    "limits": "Further limits of quotas, each with its own unit and rolling window.",
    "overrides": "Temporary exceptions of a user or a domain: more mail, no limit, or none at all.",
    "exemptions": "Clients, senders and recipients that a policy or a limit does not apply to, until a date.",
    "import": "Many permissions and quotas at once.",
    "audit": "Who changed what, and when.",
    "live": "Live state: show and reset counts and cached entries.",
    "insight": "Decisions and their reasons, what would be decided, and the state of the service.",
    "history": "Decisions of all nodes, kept over restarts: found again, and counted.",
    "notify": "Mail to users and the administrator, and the webhook.",
    "health": "For load balancers and monitoring.",
    "documentation": "This page.",
}
_TOKEN = (
    "A token made by `chapps-cli token create NAME`, or the first one, which `chapps-cli token show` prints. "
    "Its scope (`--scope`) is `read`, which cannot change anything; `operator`, which can reset and refresh what is "
    "live, and create, change and end overrides and exemptions; or `full`. The password that a browser asks for opens "
    "only the page with this text: enter the token here too."
)


class Document:
    """The OpenAPI document of some routes as JSON, made when it is first asked for.

    :ivar made: the document; empty until :meth:`make` has returned.
    :param reasons: those that a decision may have.
    """

    def __init__(self, routes: Sequence[Route[Any]], version: str, reasons: Iterable[ReasonCode] = Reason) -> None:
        self.made = b""
        self._routes = routes
        self._version = version
        self._reasons = reasons
        self._making = Lock()

    def make(self) -> bytes:
        """The document; to be called in a thread, since it takes some 0.2 s the first time."""
        with self._making:
            if not self.made:
                content = json.dumps(document(self._routes, self._version, self._reasons), ensure_ascii=False)
                self.made = content.encode("utf-8") + b"\n"
            return self.made


def document(routes: Iterable[Route[Any]], version: str, reasons: Iterable[ReasonCode] = Reason) -> dict[str, Any]:
    """The OpenAPI document of some routes.

    :param reasons: those that a decision may have.
    """
    shown = [route for route in routes if not route.hidden]
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "CHAPPS-TW",
            "version": version,
            "description": _ABOUT.strip(),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "tags": [{"name": tag, "description": _TAGS[tag]} for tag in dict.fromkeys(route.tag for route in shown)],
        "paths": paths,
        "components": {
            "schemas": _with_reasons(_schemas(shown), reasons),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
        },
    }


def operation_id(route: Route[Any]) -> str:
    """Return the operation id of a route, from its method and path."""
    words = [part.strip("{}").replace(".", "_") for part in route.path.split("/") if part]
    return "_".join([route.method.lower(), *words])


def _schemas(routes: list[Route[Any]]) -> dict[str, Any]:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(answers.Error, "serialization"): None}
    wanted[answers.Invalid, "serialization"] = None
    for route in routes:
        for answer in (route.answer, *route.other_answers.values()):
            if answer is not None:
                wanted[answer, "serialization"] = None
        if _has_body(route) and route.body == "*":
            wanted[route.input, "validation"] = None
            if route.wrapped:
                wanted[route.wrapped[1], "validation"] = None
    _, schemas = models_json_schema(list(wanted), ref_template=_REF)
    found: dict[str, Any] = schemas["$defs"]
    for route in routes:
        if _has_body(route) and route.body == "*":
            _leave_out(found[route.input.__name__], route.path_fields)
    return found


def _leave_out(schema: dict[str, Any], names: Iterable[str]) -> None:
    """Remove fields that are in the path from the schema of a body."""
    for name in names:
        del schema["properties"][name]
        schema["required"].remove(name)
        if not schema["required"]:
            del schema["required"]


def _with_reasons(schemas: dict[str, Any], reasons: Iterable[ReasonCode]) -> dict[str, Any]:
    """The schemas, with every reason that a decision may have."""
    meanings = {each.value: each.meaning for each in reasons}
    if answers.Decided.__name__ in schemas:
        reason = schemas[answers.Decided.__name__]["properties"]["reason"]
        listed = "\n".join(f"- `{code}`: {meaning}" for code, meaning in meanings.items())
        reason |= {"description": f"{reason['description']}\n\n{listed}", "enum": list(meanings)}
    return schemas


def _operation(route: Route[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route),
        # Since OpenAPI 3.1, any kind of token may have roles.
        "security": [] if route.open else [{"token": [str(route.scope)]}],
    }
    if note := _note(route):
        found["description"] = note
    if parameters := _parameters(route):
        found["parameters"] = parameters
    if _has_body(route):
        found["requestBody"] = _body(route)
    return found


def _has_body(route: Route[Any]) -> bool:
    # OpenAPI advises against bodies of GET and DELETE, and browsers send none.
    return bool(route.body) and route.method not in ("GET", "DELETE")


def _note(route: Route[Any]) -> str:
    return " ".join(filter(None, (route.note, _forms(route), _scope(route))))


def _scope(route: Route[Any]) -> str:
    return f"Needs a token with scope `{route.scope}`." if route.changes else ""


def _forms(route: Route[Any]) -> str:
    """Describe alternative forms of the input."""
    if route.method in ("GET", "DELETE") and route.body:
        form = "an object of the query parameters" if route.body == "*" else f"the value of `{route.body}` alone"
        return f"A JSON body may replace the query: {form}."
    if route.wrapped:
        return f"The body is flat, or has the object's own fields in `{route.wrapped[0]}`."
    if route.body in route.query_fields:
        return f"`{route.body}` may be a query parameter instead."
    return ""


def _parameters(route: Route[Any]) -> list[dict[str, Any]]:
    schema = route.input.model_json_schema()
    required = schema.get("required", [])
    in_body = {route.body} if _has_body(route) else set()
    query = [] if _has_body(route) and route.body == "*" else [n for n in route.query_fields if n not in in_body]
    found = []
    for place, names in (("path", route.path_fields), ("query", query)):
        for name in names:
            each = _without_null(schema["properties"][name])
            parameter = {"name": name, "in": place, "required": name in required, "schema": each}
            if "description" in each:
                parameter["description"] = each.pop("description")
            found.append(parameter)
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a parameter: an optional parameter cannot be null."""
    found = {name: value for name, value in schema.items() if name != "title"}
    options = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    if len(options) == 1:
        del found["anyOf"]
        found.pop("default", None)
        found = options[0] | found
    return found


def _body(route: Route[Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": _REF.format(model=route.input.__name__)}
    if route.wrapped:
        schema = {"anyOf": [schema, {"$ref": _REF.format(model=route.wrapped[1].__name__)}]}
    if route.body != "*":
        schema = _without_null(route.input.model_json_schema()["properties"][route.body])
    content: dict[str, Any] = {JSON: {"schema": schema}}
    if route.text is not None:
        content["text/plain"] = {"schema": {"type": "string", "pattern": route.text_pattern}}
    return {"required": not route.body_optional, "content": content}


def _responses(route: Route[Any]) -> dict[str, Any]:
    found = {str(status): _answer("Error", status) for status in (*_EVERYWHERE, *route.errors)}
    found["422"] = _answer("Invalid", 422)
    if route.open:
        del found["401"], found["503"]
    for status, model in {route.status: route.answer, **route.other_answers}.items():
        found[str(status)] = _answer(model.__name__ if model else "", status, route.content_type)
    if route.status == 201:
        found["201"]["headers"] = {"Location": {"description": "Path of the new entry.", "schema": {"type": "string"}}}
    if route.follow:
        found[str(route.status)]["links"] = {link.operation: _link(link) for link in route.follow}
    return dict(sorted(found.items()))


def _link(link: Link) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": link.operation}
    if link.parameters:
        found["parameters"] = dict(link.parameters)
    if link.body:
        found["requestBody"] = link.body
    return found


def _answer(model: str, status: int, content_type: str = JSON) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=model)} if model else {"type": "object" if content_type == JSON else "string"}
    found: dict[str, Any] = {"description": _MEANINGS[status], "content": {content_type: {"schema": schema}}}
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return found
