"""The commands and configuration files in the documentation work as they stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from chapps_tw.config.load import load
from tests.support.doc_pages import CONFIG, blocks, name_of, pages
from tests.support.doc_session import Session
from tests.support.servers.common import program, require_namespaces

INSTALLED = ". /usr/src/chapps-tw/tests/support/sandbox/installed"
BARE = "cd /usr/src/chapps-tw"
# As these are installed; the packages may be there without a configuration.
POSTFIX = "[ -e /etc/postfix/main.cf ] || cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf; newaliases"
POSTGRESQL = "echo 127.0.0.1 db.example.com >> /etc/hosts; service postgresql start"
REDIS = "redis-server --daemonize yes --save '' --dir /tmp"

# What differs from a running service with the examples.
PREPARATIONS = {
    "README.md": BARE,
    "docs/tutorial.md": f"{BARE}; {POSTFIX}",
    "docs/how-to/install.md": BARE,
    "docs/how-to/exempt.md": f"{INSTALLED}; {POSTFIX}",
    "docs/how-to/help-desk.md": f"{INSTALLED}\nchapps-cli suspend alice@example.com",
    "docs/how-to/several-processes.md": f"{INSTALLED}; {REDIS}",
    "docs/how-to/uninstall.md": f"{INSTALLED}; {POSTFIX}",
    "docs/how-to/use-a-database-server.md": f"{INSTALLED}; {POSTGRESQL}",
}
# What installs packages.
ONLINE = {"docs/how-to/install.md"}

WITH_COMMANDS = [page for page in pages() if any(block.language == "console" for block in blocks(page))]
WITH_FILES = [page for page in pages() if any(block.language == "ini" for block in blocks(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    require_namespaces()
    name = name_of(page)
    session = Session(PREPARATIONS.get(name, INSTALLED))
    for block in blocks(page):
        session.add(block)
    problems = session.run(tmp_path, network=name in ONLINE)
    assert not problems, "\n\n".join(problems)


def check_config(text: str, directory: Path) -> None:
    """Read it as a part of chapps.ini, in which an error raises an exception; the files that it names exist."""
    secret = directory / "secret"
    secret.write_text("a secret of more than sixteen characters\n")
    text = re.sub(r"(?m)^(\w+_file) = .*$", rf"\1 = {secret}", text)
    config = directory / "chapps.ini"
    section = f"[CHAPPS]\ndata_dir = {directory}\n"
    config.write_text(text.replace("[CHAPPS]\n", section) if "[CHAPPS]\n" in text else section + text)
    config.chmod(0o600)
    secret.chmod(0o600)
    load(str(config))


def check_postfix(name: str, text: str, directory: Path) -> None:
    """Let Postfix read it as its main.cf or master.cf; it warns of unknown or unused parameters."""
    for each in ("main.cf", "master.cf"):
        (directory / each).write_text(text if each == name else "")
    for option in ("-n", "-M", "-P"):
        command = [program("postconf"), "-c", str(directory), option]
        read = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize("page", WITH_FILES, ids=name_of)
def test_the_configuration_files_of_a_page_are_valid(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language != "ini":
            continue
        if block.title in ("", CONFIG):
            check_config(block.text, tmp_path)
        else:
            assert block.title in ("/etc/postfix/main.cf", "/etc/postfix/master.cf")
            check_postfix(Path(block.title).name, block.text, tmp_path)
