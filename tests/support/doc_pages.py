"""The pages of the documentation: their blocks, and what their commands must print."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.paths import ROOT

CONFIG = "/etc/chapps/chapps.ini"

# Fenced blocks, also those that are indented below a numbered step.
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>[\w-]+)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<text>.*?)^(?P=indent)```$",
    re.M | re.S,
)


def pages() -> list[Path]:
    """Return the README and all pages."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return the path of a page in the source tree."""
    return str(page.relative_to(ROOT))


@dataclass(frozen=True)
class Block:
    """A fenced block.

    :ivar title: its title; ``""`` if it has none.
    """

    language: str
    title: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command of a block ``console``.

    :ivar text: the command, in one or more lines.
    :ivar output: what it must print; ``...`` stands for any text. ``""`` if it is not shown.
    """

    text: str
    output: str

    def problem(self, status: int, printed: str) -> str:
        """Return what is wrong with what it did, ``""`` if nothing is."""
        if not self.output:
            return f"{self.text}\nended with {status}:\n{printed}" if status else ""
        pattern = ".*".join(map(re.escape, self.output.strip().split("...")))
        if re.fullmatch(pattern, printed.strip(), re.DOTALL):
            return ""
        return f"{self.text}\nended with {status}, and printed\n{printed}\ninstead of\n{self.output}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    return [
        Block(found["language"], found["title"] or "", re.sub(f"(?m)^{found['indent']}", "", found["text"]))
        for found in _BLOCK.finditer(page.read_text("utf-8"))
    ]


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block ``console``.

    :raises ValueError: if it does not begin with a prompt.
    """
    command, output = "", ""
    for line in block.text.splitlines():
        if line.startswith(("$ ", "# ")):
            if command:
                yield Command(command, output)
            command, output = line[2:], ""
        elif not command:
            raise ValueError(f"a block of commands begins with {line!r}, not with a prompt")
        elif line.startswith("> ") and not output:
            command += f"\n{line[2:]}"
        else:
            output += f"{line}\n"
    yield Command(command, output)
