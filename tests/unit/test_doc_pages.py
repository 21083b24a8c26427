"""How the commands of the documentation are found and judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.doc_pages import Block, Command, blocks, commands

PAGE = """# A page

1. A step:

    ```console
    $ first
    output
    # second <<END
    > more
    > END
    ```

```ini title="/etc/postfix/main.cf"
a = b
```
"""


def test_blocks_are_found_with_their_titles_below_steps_too(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    console, ini = blocks(tmp_path / "page.md")
    assert (console.language, console.title, console.text.splitlines()[0]) == ("console", "", "$ first")
    assert ini == Block("ini", "/etc/postfix/main.cf", "a = b\n")


def test_a_command_has_its_further_lines_and_its_output(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    assert list(commands(blocks(tmp_path / "page.md")[0])) == [
        Command("first", "output\n"),
        Command("second <<END\nmore\nEND", ""),
    ]


def test_a_block_of_commands_begins_with_a_prompt() -> None:
    with pytest.raises(ValueError, match="begins with 'first'"):
        list(commands(Block("console", "", "first\n")))


@pytest.mark.parametrize(
    ("output", "status", "printed", "is_right"),
    [
        ("", 0, "anything\n", True),
        ("", 1, "", False),
        ("one\n", 0, "one\n", True),
        ("one\n", 1, "one\n", True),
        ("one\n", 0, "one\ntwo\n", False),
        ("one\n...\n", 0, "one\ntwo\n", True),
        ("a ... c\n", 0, "a b c\n", True),
        ("a.c\n", 0, "abc\n", False),
    ],
)
def test_a_command_must_succeed_or_print_what_is_shown(output: str, status: int, printed: str, is_right: bool) -> None:
    assert (Command("run", output).problem(status, printed) == "") == is_right
