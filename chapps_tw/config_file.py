"""Reading and writing chapps.ini."""

from __future__ import annotations

import configparser
import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from chapps_tw.config import OBSOLETE, SECTIONS, Chapps, ConfigError, Listener, Settings, is_local
from chapps_tw.config_values import Secret

DEFAULT_PATH = "/etc/chapps/chapps.ini"
ENVIRONMENT_VARIABLE = "CHAPPS_CONFIG"
PUBLISHED_PASSWORD = "effda33d276c1d5649f3933a6d6b286ed7eaaede0b944221e7699553ce0558e2"


def default_path(environ: Mapping[str, str]) -> str:
    """The file to read when none was named: ``$CHAPPS_CONFIG``, else the system's, else none."""
    named = environ.get(ENVIRONMENT_VARIABLE, "")
    return named or (DEFAULT_PATH if Path(DEFAULT_PATH).exists() else "")


def load(path: str | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration.

    :param path: the file; ``None`` looks for it (:func:`default_path`), ``""`` takes the built-in defaults.
    :param environ: where ``CHAPPS_<SECTION>_<OPTION>`` is looked up; it wins over the file.
    :raises ConfigError: with everything that is wrong, at once.
    """
    environ = {} if environ is None else environ
    if path is None:
        path = default_path(environ)
    return _Reader(path, environ).settings()


class _Reader:
    """Turns one file and one environment into settings, and collects what is wrong with them."""

    def __init__(self, path: str, environ: Mapping[str, str]) -> None:
        self.path = path
        self.problems: list[str] = []
        self.warnings: list[str] = []
        self.values = self._from_file()
        self._from_environment(environ)

    def settings(self) -> Settings:
        parts: dict[str, Any] = {name: self._section(kind, kind.section) for name, kind in SECTIONS.items()}
        parts["own_listeners"] = tuple(
            dataclasses.replace(self._section(Listener, section), name=section.split(None, 1)[1])
            for section in self.values
            if _is_listener(section)
        )
        parts["chapps"] = self._without_published_password(parts["chapps"])
        parts["db_password"] = self._secret(parts["adapter"], "db_pass")
        parts["redis_password"] = self._secret(parts["redis"], "password")
        found = Settings(**parts, path=self.path, warnings=tuple(self.warnings))
        if not self.problems:
            self.problems += [f"{self._where()}{problem}" for problem in _contradictions(found)]
        if self.problems:
            raise ConfigError(self.problems)
        return found

    def _where(self) -> str:
        return f"{self.path or 'built-in configuration'}: "

    def _from_file(self) -> dict[str, dict[str, str]]:
        if not self.path:
            return {}
        parser = configparser.RawConfigParser(default_section="")
        try:
            parser.read_string(Path(self.path).read_text("utf-8"), self.path)
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            sentence = " ".join(str(error).split())
            raise ConfigError([f"{self.path}: cannot be read: {sentence}"]) from None
        values = {section: dict(parser.items(section)) for section in parser.sections()}
        self._drop_unknown(values)
        return values

    def _drop_unknown(self, values: dict[str, dict[str, str]]) -> None:
        known = {kind.section: _names(kind) for kind in SECTIONS.values()}
        for section in list(values):
            names = _names(Listener) if _is_listener(section) else known.get(section)
            if names is None:
                self._unknown(f"unknown section [{section}]", section, [*known, "Listener NAME"])
                del values[section]
                continue
            for name in [name for name in values[section] if name not in names]:
                del values[section][name]
                if (section, name) not in OBSOLETE:
                    self._unknown(f"[{section}] {name}: unknown option", name, names)

    def _unknown(self, sentence: str, name: str, known: list[str]) -> None:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        remedy = f"did you mean {near[0]}?" if near else "known are " + ", ".join(known)
        self.problems.append(f"{self._where()}{sentence}; {remedy}")

    def _from_environment(self, environ: Mapping[str, str]) -> None:
        for kind in SECTIONS.values():
            for name in _names(kind):
                variable = f"CHAPPS_{kind.section}_{name}".upper()
                if variable in environ:
                    self.values.setdefault(kind.section, {})[name] = environ[variable]

    def _section(self, kind: type[Any], section: str) -> Any:
        given = self.values.get(section, {})
        found: dict[str, Any] = dict.fromkeys(_names(kind))
        for name, metadata in _options(kind):
            text = given.get(name, metadata["default"]).strip()
            try:
                if "\n" in text or "\0" in text:
                    raise ValueError("a value on one line")
                found[name] = metadata["parse"](text)
            except ValueError as error:
                shown = "********" if metadata["parse"] is Secret else repr(text)
                self.problems.append(f"{self._where()}[{section}] {name} = {shown}: must be {error}")
        return kind(**found)

    def _without_published_password(self, chapps: Chapps) -> Chapps:
        if chapps.password != PUBLISHED_PASSWORD:
            return chapps
        self.warnings.append(
            f"{self._where()}[CHAPPS] password is the published default of CHAPPS and is not accepted; "
            "make another with chapps-cli admin passcode"
        )
        return dataclasses.replace(chapps, password=Secret(""))

    def _secret(self, section: Any, name: str) -> Secret:
        value, file = getattr(section, name), getattr(section, f"{name}_file")
        if not file:
            return Secret(value)
        where = f"{self._where()}[{section.section}] {name}_file = {file!r}"
        if value:
            self.problems.append(f"{where}: {name} is given too; leave one of the two out")
            return Secret("")
        try:
            return Secret(Path(file).read_text("utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{where}: must be a readable file ({error})")
            return Secret("")


def _contradictions(settings: Settings) -> Iterator[str]:
    """What single options cannot tell. Yields sentences."""
    if settings.chapps.require_user_key and not settings.chapps.user_key:
        yield "[CHAPPS] user_key = '': must name a request attribute while require_user_key is True"
    if settings.redis.sentinel_servers and not settings.redis.sentinel_dataset:
        yield "[Redis] sentinel_dataset = '': must name the master that sentinel_servers watch"
    for server in settings.redis.sentinel_servers.split():
        if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\s]+):\d{1,5}", server):
            yield f"[Redis] sentinel_servers = {server!r}: must be host:port"
    if settings.api.auth == "none" and settings.api.listen and not is_local(settings.api.listen):
        yield (
            f"[API] auth = none: must be token unless listen is a loopback address or a unix socket, "
            f"not {settings.api.listen!r}"
        )
    seen: dict[str, str] = {settings.api.listen: "the HTTP API"} if settings.api.listen else {}
    for listener in settings.listeners:
        if listener.listen in seen:
            yield f"[Listener {listener.name}] listen = {listener.listen!r}: is taken by {seen[listener.listen]}"
        seen[listener.listen] = f"listener {listener.name}"


def _is_listener(section: str) -> bool:
    return len(section.split(None, 1)) == 2 and section.split()[0] == Listener.section


def _options(kind: type[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((each.name, each.metadata) for each in fields(kind) if each.metadata)


def _names(kind: type[Any]) -> list[str]:
    return [name for name, _ in _options(kind)]


def render(settings: Settings) -> str:
    """The settings as the text of a chapps.ini: every option, its help as a comment.

    :func:`load` of that text gives the same settings.
    """
    lines = ["# CHAPPS-TW configuration. A line that begins with # or ; is a comment.", ""]
    for name, kind in SECTIONS.items():
        lines += _render_section(f"[{kind.section}]", getattr(settings, name))
    for listener in settings.own_listeners:
        lines += _render_section(f"[Listener {listener.name}]", listener)
    return "\n".join(lines)


def _render_section(title: str, section: Any) -> list[str]:
    lines = [title]
    for name, metadata in _options(type(section)):
        value = getattr(section, name)
        lines += [f"# {metadata['help']}", f"{name} = {_as_text(value)}".rstrip()]
    return [*lines, ""]


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(value)
    if isinstance(value, float):
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return str(value)
