"""What the running service says of its listeners, compared with the configuration of Postfix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from chapps_tw.postfix_check.evaluation import Server
from chapps_tw.postfix_check.finding import Finding, Severity
from chapps_tw.postfix_check.listeners import OurListener


def of_running(
    running: Sequence[Mapping[str, Any]], servers: Sequence[Server], listeners: Sequence[OurListener]
) -> Iterator[Finding]:
    """Find differences between what should be asked and what was.

    :param running: what ``GET /live/listeners/`` answers.
    """
    known = {each["listener"]: each for each in running}
    for listener in listeners:
        expected = [stage for server in servers for stage in server.stages(listener)]
        if listener.name not in known:
            problem = "the running service does not have this listener"
            effect = "It was started with another configuration: requests to it fail"
            yield _of(Severity.WARNING, "not-running", listener, problem, effect, "Restart the service.")
        else:
            yield from _compared(listener, known[listener.name], list(dict.fromkeys(expected)))


def _of(severity: Severity, code: str, listener: OurListener, *words: str) -> Finding:
    return Finding(severity, code, "running service", "", listener.name, *words)


def _compared(listener: OurListener, state: Mapping[str, Any], expected: Sequence[str]) -> Iterator[Finding]:
    asked = [each["stage"] for each in state["stages"]]
    missing = [stage for stage in expected if stage not in asked]
    if missing:
        problem = f"it has not been asked at {' and '.join(missing)} since its start"
        effect = "There was no such mail yet, or this is not the Postfix that asks it"
        yield _of(Severity.NOTE, "never-asked", listener, problem, effect, "Send a message and look again.")
    if asked and not expected:
        peers = ", ".join(each["peer"] for each in state["peers"]) or "somebody"
        problem = f"it is asked by {peers}, although this Postfix does not ask it"
        effect = "Another Postfix or another program asks"
        yield _of(Severity.NOTE, "asked-by-others", listener, problem, effect)
    for sentence in state["warnings"]:
        effect = "The mail passes without it"
        yield _of(Severity.WARNING, "not-applied", listener, sentence, effect, "Write it in the list that is named.")
