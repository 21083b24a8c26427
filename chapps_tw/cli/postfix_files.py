"""Reads the configuration of Postfix, by postconf(1) or from files."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Final

import click

from chapps_tw.postfix_check.source import Source, SourceError, read_main, read_master

_MAX_BYTES: Final = 1 << 20
# postconf(1) only reads files.
_TIMEOUT: Final = 30.0
_PLACES: Final = "/usr/sbin:/usr/local/sbin:/sbin"


def read_source(config_dir: str | None, postconf: str | None, master: str | None, remarks: list[str]) -> Source:
    """Read the configuration of Postfix.

    :param config_dir: its directory; ``None`` is that of this machine, unless there are files.
    :param postconf, master: files with main.cf and master.cf, or with what ``postconf -n`` and ``postconf -M`` print.
    :param remarks: gets what postconf has to say.
    :raises click.UsageError: if it cannot be read, or is invalid.
    """
    if (postconf is None) is not (master is None) or (postconf and config_dir):
        raise click.UsageError("give --postconf and --master together, or --config-dir, or none of them")
    if postconf is not None and master is not None:
        main_text, master_text = _read(postconf), _read(master)
    else:
        main_text, master_text = (_ask_postconf(config_dir, option, remarks) for option in ("-n", "-M"))
    try:
        return Source(read_main(main_text), read_master(master_text))
    except SourceError as error:
        raise click.UsageError(str(error)) from None


def _read(name: str) -> str:
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise click.UsageError(f"{name} cannot be read: {error.strerror}") from None
    if len(text) > _MAX_BYTES:
        raise click.UsageError(f"{name} has more than {_MAX_BYTES} characters: it is no configuration of Postfix")
    return text


def _ask_postconf(config_dir: str | None, option: str, remarks: list[str]) -> str:
    program = shutil.which("postconf", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if not program:
        raise click.UsageError("postconf is not installed here: give --postconf and --master")
    command = [program, *(["-c", config_dir] if config_dir else []), option]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise click.UsageError(f"{' '.join(command)} failed: {error}") from None
    complaints = ran.stderr[:_MAX_BYTES].splitlines()
    if ran.returncode:
        raise click.UsageError(f"{' '.join(command)} failed: {'; '.join(complaints)}")
    remarks += [line for line in complaints if line not in remarks]
    return ran.stdout
