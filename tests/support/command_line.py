"""``chapps-cli``, run in this process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from chapps_tw.application import admin
from chapps_tw.cli import main


class Ran(NamedTuple):
    """What a command printed, and its exit status."""

    code: int
    out: str
    err: str


class CommandLine:
    """Runs commands with a configuration file.

    :param now: the time, in epoch seconds, that commands see.
    """

    def __init__(self, config: Path, now: float) -> None:
        self._config = config
        self.now = now

    def run(self, *arguments: str) -> Ran:
        """Run one command."""
        return self.run_bare(["--config", str(self._config), *arguments])

    def run_bare(self, arguments: Sequence[str]) -> Ran:
        """Run one command without naming the configuration."""
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main.run(arguments, admin.dependencies(lambda: self.now))
        return Ran(code, out.getvalue(), err.getvalue())

    def ok(self, *arguments: str) -> str:
        """Return what a successful command prints.

        :raises AssertionError: if it fails.
        """
        ran = self.run(*arguments)
        if ran.code:
            raise AssertionError(f"{arguments} ended with {ran.code}: {ran.err}")
        return ran.out

    def json(self, *arguments: str) -> Any:
        """Return what a successful command prints with ``--json``."""
        return json.loads(self.ok(*arguments, "--json"))
