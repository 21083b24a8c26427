"""OpenAPI 3.1, made from the routes and the models that validate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from chapps_tw.rest import answers
from chapps_tw.rest.routing import JSON, Link, Route

_REF = "#/components/schemas/{model}"
_EVERYWHERE = (400, 401, 403, 413, 415, 422, 503)
_MEANINGS = {
    200: "Done.",
    307: "It is elsewhere: the header Location tells where.",
    201: "Created.",
    400: "Something is missing, or the body cannot be read.",
    401: "No token, or none of ours; a wrong passcode, or none that could be right.",
    403: "A read-only token, or a Host that is not ours.",
    404: "There is no such thing.",
    409: "The name, or a quota's number, is taken, or an id to link to is that of nothing.",
    413: "The body is too large.",
    415: "The Content-Type of the body is none of those that are described, or not UTF-8.",
    422: "Something is not as it must be; each fault is listed.",
    503: "The state store or the database is away.",
}
_ABOUT = """
Every success is an object with `response`, `version`, `timestamp` and `remarks`, a list of sentences that tell what
else there is to say. Every error is an object with `detail`: a sentence, or with 422 a list that names each fault.

Ids are positive whole numbers and are given by the service. A body is JSON in UTF-8, with
`Content-Type: application/json`; a field or a parameter that is not described here is refused, as are values of
another type. Lists in a query are given by repeating the parameter: `?user_ids=1&user_ids=2`. Paths work with and
without the final slash; a name in a path is percent-encoded, also its slashes.

A change is in force for the next policy request, on every node. It is done as a whole or not at all.

To try requests on the page `/docs`, click *Authorize* and enter the token there too: the password that the browser
asks for opens only the page itself.
"""
_TAGS = {
    "users": "Who may send, how much (their quota), and as whom (their domains and mail addresses).",
    "domains": "Domains that users may send from. Those that mail is received for have two flags besides: "
    "whether SPF and greylisting are applied to them.",
    "emails": "Single mail addresses that users may send from, in domains that are not theirs as a whole.",
    "quotas": "Numbers of transmissions in the rolling interval. Several users may have the same quota; each has all "
    "of it.",
    "live": "What was counted and what is cached: to look at it, and to forget it.",
    "insight": "What was decided and why, what would be decided, and how the service does.",
    "health": "For load balancers and monitoring.",
    "documentation": "This page.",
}
_TOKEN = (
    "A token that `chapps-cli token create NAME` has made, or the first one, which `chapps-cli token show` shows. "
    "A read-only token (`--read-only`) may ask, and change nothing. The password that a browser asks for opens only "
    "the page with this text: enter the token here too."
)


class Document:
    """The OpenAPI document of some routes as JSON, made when it is first asked for.

    :ivar made: the document; empty until :meth:`make` has returned.
    """

    def __init__(self, routes: Sequence[Route[Any]], version: str) -> None:
        self.made = b""
        self._routes = routes
        self._version = version
        self._making = Lock()

    def make(self) -> bytes:
        """The document; to be called in a thread, since it takes some 0.2 s the first time."""
        with self._making:
            if not self.made:
                content = json.dumps(document(self._routes, self._version), ensure_ascii=False)
                self.made = content.encode("utf-8") + b"\n"
            return self.made


def document(routes: Iterable[Route[Any]], version: str) -> dict[str, Any]:
    """The OpenAPI document of some routes."""
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
        "security": [{"token": []}],
        "components": {
            "schemas": _schemas(shown),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": _TOKEN}},
        },
    }


def operation_id(route: Route[Any]) -> str:
    """A name for a route, made of its method and its path."""
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
    return found


def _operation(route: Route[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route),
    }
    if note := _note(route):
        found["description"] = note
    if parameters := _parameters(route):
        found["parameters"] = parameters
    if _has_body(route):
        found["requestBody"] = _body(route)
    if route.open:
        found["security"] = []
    return found


def _has_body(route: Route[Any]) -> bool:
    # OpenAPI advises against bodies of GET and DELETE, and browsers send none.
    return bool(route.body) and route.method not in ("GET", "DELETE")


def _note(route: Route[Any]) -> str:
    return " ".join(filter(None, (route.note, _forms(route))))


def _forms(route: Route[Any]) -> str:
    """In which other forms the input is taken."""
    if route.method in ("GET", "DELETE") and route.body:
        form = "an object of the query parameters" if route.body == "*" else f"the value of `{route.body}` alone"
        return f"A JSON body may stand in place of the query: {form}."
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
    """The schema of a parameter: one that may be left out has no null."""
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
        content["text/plain"] = {"schema": {"type": "string", "pattern": r"^[a-z_]+=[^\u0000\n]*\n$"}}
    return {"required": not route.body_optional, "content": content}


def _responses(route: Route[Any]) -> dict[str, Any]:
    found = {str(status): _answer("Error", status) for status in (*_EVERYWHERE, *route.errors)}
    found["422"] = _answer("Invalid", 422)
    if route.open:
        del found["401"], found["503"]
    for status, model in {route.status: route.answer, **route.other_answers}.items():
        found[str(status)] = _answer(model.__name__ if model else "", status, route.content_type)
    if route.status == 201:
        found["201"]["headers"] = {"Location": {"description": "Its path.", "schema": {"type": "string"}}}
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
