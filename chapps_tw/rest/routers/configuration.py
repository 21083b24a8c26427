"""The configuration: reading it again, and writing it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chapps_tw.config.settings import ConfigError
from chapps_tw.interfaces.configuration import Configuration, Loaded
from chapps_tw.rest import answers
from chapps_tw.rest.models import insight as m
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.moments import iso
from chapps_tw.rest.routing import Refusal, Reply, Route
from chapps_tw.security.tokens import Scope

_NOTE = (
    "The same as SIGHUP, or `systemctl reload`: the file, the files of passwords and the certificates are read again, "
    "and take effect between two requests. `changed` has the options that are different now, `restart` those that take "
    "effect after a restart of the service. If there is an error, nothing is changed."
)


def routes(config: Configuration) -> Iterator[Route[Any]]:
    """Return all routes of this family."""

    async def reload(_: Nothing) -> Reply:
        try:
            change = await config.reload()
        except ConfigError as error:
            raise Refusal(409, "\n".join(error.problems)) from None
        return Reply({"changed": change.changed, "restart": change.restart, **shown(change.loaded)})

    async def write(given: m.Passcode) -> Reply:
        try:
            path, remarks = await config.write(given.passcode)
        except ConfigError as error:
            raise Refusal(503, str(error)) from None
        return Reply(path, remarks=remarks)

    yield Route(
        "POST", "/live/config/reload/", "Read the configuration again, and put it in force", reload,
        answer=answers.Reloaded, errors=(409,), scope=Scope.FULL, tag="insight", note=_NOTE,
    )  # fmt: skip
    yield Route(
        "POST", "/live/config/write/", "Write the effective configuration to its file", write, m.Passcode,
        answers.Said, body="passcode", query=False, scope=Scope.FULL, tag="insight",
    )  # fmt: skip


def shown(loaded: Loaded) -> dict[str, Any]:
    """Return the configuration in force for an answer."""
    return {"digest": loaded.digest, "loaded": loaded.at, "loaded_iso": iso(loaded.at)}
