"""Runs the commands of a page of the documentation in one session, in a copy of this system that is thrown away."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.doc_pages import CONFIG, Block, Command, commands
from tests.support.paths import ROOT
from tests.support.servers.common import HANGS, program

_SANDBOX = Path(__file__).parent / "sandbox"
_HELPER = "/usr/src/chapps-tw/tests/support/sandbox"

# Commands in a block with this title go on running; its output is waited for.
FOREGROUND = "First terminal"


class Session:
    """The commands of a page, as a script.

    :param preparation: lines before them.
    :param language: of the blocks with its commands.
    """

    def __init__(self, preparation: str, language: str = "console") -> None:
        self._language = language
        self._script = ["shopt -s expand_aliases", "set -e", preparation, "set +e"]
        self._commands: list[Command] = []

    def add(self, block: Block) -> None:
        """Add a block: its commands, or options that are set in the configuration."""
        if block.language == self._language:
            for command in commands(block):
                self._add(command, block.title == FOREGROUND)
        elif block.language == "ini" and block.title in ("", CONFIG):
            self._script.append(f"{_HELPER}/set-options {CONFIG} <<'END-OF-OPTIONS'\n{block.text}END-OF-OPTIONS")

    def _add(self, command: Command, keeps_running: bool) -> None:
        mark = f"printf '\\036{len(self._commands)} %s\\n'"
        self._commands.append(command)
        text = command.text
        if keeps_running:
            text = _in_background(command)
        self._script.append(f"{mark} begins\n{text}\n{mark} $?")

    @property
    def script(self) -> str:
        """The script for bash; :meth:`problems` reads its output."""
        return "\n".join(self._script) + "\n"

    def problems(self, output: str) -> list[str]:
        """Return what is wrong, by what the script has printed."""
        return list(_problems(self._commands, output))

    def run(self, directory: Path, network: bool) -> list[str]:
        """Run them; return what is wrong.

        :param network: whether they need the Internet; otherwise they have a network of their own.
        """
        script = directory / "script"
        script.write_text(self.script)
        (directory / "system").mkdir()
        unshare = [program("unshare"), "--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        enter = [str(_SANDBOX / "enter"), str(directory / "system"), str(ROOT), sys.prefix, str(script)]
        env = os.environ if network else {**os.environ, "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}
        ran = subprocess.run(
            [*unshare, *enter], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=HANGS,
        )  # fmt: skip
        return self.problems(ran.stdout.decode("utf-8", "replace"))


def _in_background(command: Command) -> str:
    """Return a command that starts another one, and waits for its output."""
    awaited = shlex.quote([line for line in command.output.splitlines() if line != "..."][-1])
    return (
        f"{command.text} > /tmp/foreground 2>&1 < /dev/null &\n"
        f"until grep -qF {awaited} /tmp/foreground; do kill -0 $! || break; sleep 0.1; done\n"
        "cat /tmp/foreground; kill -0 $!"
    )


def _problems(wanted: Sequence[Command], output: str) -> Iterator[str]:
    before, *parts = output.split("\036")
    done: dict[int, tuple[int, str]] = {}
    printed = ""
    for part in parts:
        number, _, rest = part.partition(" ")
        what, _, after = rest.partition("\n")
        if what == "begins":
            printed = after
        else:
            done[int(number)] = int(what), printed
    for place, command in enumerate(wanted):
        if place not in done:
            yield f"{command.text}\ndid not end; printed:\n{printed or before}"
            return
        if problem := command.problem(*done[place]):
            yield problem
