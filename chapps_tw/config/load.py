"""Loading of the configuration from chapps.ini and the environment."""

from __future__ import annotations

import configparser
import dataclasses
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from chapps_tw.config import checks, limit_checks, notify_checks
from chapps_tw.config.checks import Finding
from chapps_tw.config.settings import (
    OBSOLETE,
    REPLACED,
    SECRETS,
    SECTIONS,
    Chapps,
    ConfigError,
    Listener,
    PolicySection,
    RateLimit,
    Settings,
    policy_names,
)
from chapps_tw.config.values import COMMENT, Secret, has_comment, nearest
from chapps_tw.security.passcode import is_hash
from chapps_tw.security.private_files import explain

DEFAULT_PATH = "/etc/chapps/chapps.ini"
ENVIRONMENT_VARIABLE = "CHAPPS_CONFIG"
# Variables of chapps-cli.
CLIENT_VARIABLES = frozenset({"CHAPPS_URL", "CHAPPS_TOKEN_FILE"})
# Variables that Kubernetes sets for a service named chapps or chapps-NAME.
_LINK = re.compile(r"CHAPPS(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)")

PUBLISHED_PASSWORD = "effda33d276c1d5649f3933a6d6b286ed7eaaede0b944221e7699553ce0558e2"


def default_path(environ: Mapping[str, str]) -> str:
    """Return the default file: ``$CHAPPS_CONFIG``, otherwise :data:`DEFAULT_PATH`, or ``""`` if that does not exist."""
    named = environ.get(ENVIRONMENT_VARIABLE, "")
    return named or ("" if _is_missing(DEFAULT_PATH) else DEFAULT_PATH)


def _is_missing(path: str) -> bool:
    """Whether a file does not exist. False if that is unknown: opening it then raises the error to report."""
    try:
        os.stat(path)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ENOTDIR)
    return False


def load(
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    check: Callable[[Settings], Iterable[Finding]] = lambda _: (),
    added: Sequence[type[PolicySection]] = (),
    unknown: Callable[[str], None] | None = None,
    content: bytes | None = None,
) -> Settings:
    """Load the configuration.

    :param path: the file; ``None`` uses :func:`default_path`, ``""`` the built-in defaults.
    :param environ: environment whose ``CHAPPS_<SECTION>_<OPTION>`` variables override the file.
    :param check: finds further problems, such as missing files. It sees the default of an invalid option; its
        findings about that option are ignored.
    :param added: sections of policies that :class:`~chapps_tw.config.settings.Settings` has no field for.
    :param unknown: called with a sentence for each unknown section or option; by default, they are errors.
    :param content: of the file, if it was read before.
    :raises ConfigError: with all errors.
    """
    environ = {} if environ is None else environ
    if path is None:
        path = default_path(environ)
    return _Reader(path, environ, added, unknown, content).settings(check)


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Find all options that conflict."""
    for each in (checks.contradictions, limit_checks.contradictions, notify_checks.contradictions):
        yield from each(settings)


class _Reader:
    """Converts a file and an environment into settings, and collects the errors."""

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        added: Sequence[type[PolicySection]],
        unknown: Callable[[str], None] | None,
        content: bytes | None,
    ) -> None:
        self.path = path
        self.added = added
        self.kinds: list[type[Any]] = [*SECTIONS.values(), *added]
        self.problems: list[str] = []
        self.report_unknown = unknown or self.problems.append
        self.warnings: list[str] = []
        self.unread: set[tuple[str, str]] = set()
        # Options that were set by an older option.
        self.given_as: dict[tuple[str, str], tuple[str, str]] = {}
        self.content = b""
        self.lines: dict[tuple[str, str], int] = {}
        self.variables: dict[tuple[str, str], str] = {}
        self.overridden: dict[tuple[str, str], str] = {}
        self.values = self._from_file(content)
        self._from_environment(environ)

    def settings(self, check: Callable[[Settings], Iterable[Finding]]) -> Settings:
        parts: dict[str, Any] = {name: self._section(kind, kind.section) for name, kind in SECTIONS.items()}
        parts["added"] = tuple(self._section(kind, kind.section) for kind in self.added)
        parts["own_listeners"] = tuple(self._listener(section) for section in self._named(Listener))
        parts["limits"] = tuple(self._limit(section) for section in self._named(RateLimit))
        parts["chapps"] = self._without_useless_password(parts["chapps"])
        parts |= {name: self._secret(parts[section], option) for name, (section, option) in SECRETS.items()}
        found = Settings(**parts, path=self.path, content=self.content, overridden=self.overridden)
        for each in (contradictions, check):
            self.problems += self._sentences(each(found))
        if self.problems:
            # An older option that sets several options is reported once.
            raise ConfigError(list(dict.fromkeys(self.problems)))
        for each in (checks.warnings, limit_checks.warnings, notify_checks.warnings):
            self.warnings += self._sentences(each(found))
        return dataclasses.replace(found, warnings=tuple(self.warnings))

    def _listener(self, section: str) -> Listener:
        known = [kind.section for kind in self.kinds if issubclass(kind, PolicySection)]
        found: Listener = self._section(Listener, section, {"policies": policy_names(known)})
        return dataclasses.replace(found, name=_name_in(section))

    def _limit(self, section: str) -> RateLimit:
        found: RateLimit = self._section(RateLimit, section)
        return dataclasses.replace(found, name=_name_in(section))

    def _named(self, kind: type[Any]) -> list[str]:
        """Return the sections ``[KIND NAME]`` of a kind."""
        return [section for section in self.values if _kind_of(section) is kind]

    def _sentences(self, findings: Iterable[Finding]) -> Iterator[str]:
        """Format findings, except those that depend on an invalid option."""
        for found in findings:
            if self.unread.isdisjoint({(found.section, found.option), *found.others}):
                yield f"{self._place(found.section, found.option)} = {found.value!r}: {found.words}"

    def _place(self, section: str, name: str) -> str:
        """Return where an option was set."""
        if variable := self.variables.get((section, name)):
            return f"environment: {variable}"
        section, name = self.given_as.get((section, name), (section, name))
        return f"{self._where(section, name)}[{section}] {name}"

    def _unreadable(self, section: str, name: str, value: object, words: object) -> None:
        self.unread.add((section, name))
        self.problems.append(f"{self._place(section, name)} = {value!r}: must be {words}")

    def _where(self, section: str, name: str = "") -> str:
        """Return the file, with the line of an option or a section."""
        line = self.lines.get((" ".join(section.split()), name))
        return f"{self.path or 'built-in configuration'}: " + (f"line {line}: " if line else "")

    def _from_file(self, content: bytes | None) -> dict[str, dict[str, str]]:
        if not self.path:
            return {}
        parser = configparser.RawConfigParser(default_section="")
        mode = 0
        try:
            if content is None:
                with open(self.path, "rb") as file:
                    content, mode = file.read(), stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            self.content = content
            text = self.content.decode("utf-8-sig")
            parser.read_string(text, self.path)
        except OSError as error:
            raise ConfigError([f"{self.path}: cannot be read: {explain(self.path, error)}"]) from None
        except (UnicodeDecodeError, configparser.Error) as error:
            sentence = " ".join(str(error).split())
            raise ConfigError([f"{self.path}: cannot be read: {sentence}"]) from None
        self.lines = _lines(text)
        values = {section: dict(parser.items(section)) for section in parser.sections()}
        self._check_mode(mode, values)
        for (section, old), names in REPLACED.items():
            given = values.get(section, {})
            if old in given:
                self.given_as |= {(section, name): (section, old) for name in names if name not in given}
                values[section] = dict.fromkeys(names, given.pop(old)) | given
        self._drop_unknown(values)
        return values

    def _check_mode(self, mode: int, values: Mapping[str, Mapping[str, str]]) -> None:
        """Warn if the file contains a secret and is world-readable."""
        secrets = [
            (kind.section, name)
            for kind in self.kinds
            for name, metadata in options(kind)
            if metadata["parse"] is Secret and values.get(kind.section, {}).get(name)
        ]
        if secrets and mode & stat.S_IROTH:
            words = f"is a secret that every local account can read (mode {mode:04o}); run chmod o-r {self.path}"
            self.warnings.append(f"{self._place(*secrets[0])} {words}")

    def _drop_unknown(self, values: dict[str, dict[str, str]]) -> None:
        known = {kind.section: _names(kind) for kind in self.kinds}
        for section in list(values):
            kind = _kind_of(section)
            names = _names(kind) if kind else known.get(section)
            if names is None:
                sentence = f"{self._where(section)}unknown section [{section}]"
                self._unknown(sentence, section, [*known, "Listener NAME", "Limit NAME"])
                del values[section]
                continue
            for name in [name for name in values[section] if name not in names]:
                value = values[section].pop(name)
                if (section, name) not in OBSOLETE:
                    homes = [f"[{other}]" for other, theirs in known.items() if name in theirs]
                    self._unknown(f"{self._place(section, name)}: unknown option", name, names, homes)
                elif name == "whitelist" and value.strip() not in ("", "[]"):
                    self.warnings.append(f"{self._place(section, name)} has no effect; see [CHAPPS] helo_whitelist")

    def _unknown(self, sentence: str, name: str, known: list[str], homes: Sequence[str] = ()) -> None:
        if homes and not nearest(name, known, 0.7):
            remedy = f"; it belongs to {', '.join(homes)}"
        else:
            remedy = nearest(name, known, 0.4) or "; valid names are " + ", ".join(known)
        self.report_unknown(f"{sentence}{remedy}")

    def _from_environment(self, environ: Mapping[str, str]) -> None:
        places = [(kind.section, name) for kind in self.kinds for name in _names(kind)]
        known = {f"CHAPPS_{section}_{name}".upper(): (section, name) for section, name in (*places, *REPLACED)}
        given = {known[variable]: variable for variable in sorted(environ.keys() & known.keys())}
        for (section, old), names in REPLACED.items():
            if (section, old) in given:
                given = dict.fromkeys([(section, name) for name in names], given.pop((section, old))) | given
        for (section, name), variable in given.items():
            values = self.values.setdefault(section, {})
            self.overridden[section, name] = values.get(name, "").partition("\n")[0].strip()
            self.variables[section, name] = variable
            values[name] = environ[variable]
        for variable in sorted(environ.keys() - known.keys() - {ENVIRONMENT_VARIABLE} - CLIENT_VARIABLES):
            if variable.startswith("CHAPPS_") and not _is_link(variable, environ[variable]):
                self._unknown_variable(variable, known)

    def _unknown_variable(self, variable: str, known: Iterable[str]) -> None:
        sections = [kind.section for kind in self.kinds]
        remedy = nearest(variable, known, 0.8)
        if not remedy and not variable.startswith(tuple(f"CHAPPS_{section}_".upper() for section in sections)):
            remedy = f"; the form is CHAPPS_<SECTION>_<OPTION>, sections are {', '.join(sections)}"
        self.warnings.append(f"environment: {variable} names no option and has no effect{remedy}")

    def _section(
        self, kind: type[Any], section: str, parsers: Mapping[str, Callable[[str], object]] | None = None
    ) -> Any:
        """Return a section. ``parsers`` overrides the parsers of options."""
        given = self.values.get(section, {})
        found: dict[str, Any] = dict.fromkeys(_names(kind))
        for name, metadata in options(kind):
            parse = (parsers or {}).get(name, metadata["parse"])
            text = given.get(name, metadata["default"]).strip()
            try:
                if "\n" in text or "\0" in text:
                    raise ValueError("a value on one line; a line that starts with a space continues the previous one")
                found[name] = parse(text)
            except ValueError as error:
                words = str(error)
                if has_comment(text) and COMMENT not in words:
                    words = f"{words}; {COMMENT}"
                self._unreadable(section, name, Secret(text) if metadata["parse"] is Secret else text, words)
                # A required option has no default.
                found[name] = parse(metadata["default"]) if metadata["default"] else ""
        return kind(**found)

    def _without_useless_password(self, chapps: Chapps) -> Chapps:
        if chapps.password == PUBLISHED_PASSWORD:
            why = "is the published default of CHAPPS and is not accepted; create another one"
        elif chapps.password and not is_hash(chapps.password):
            why = "is not a hash, so that no passcode matches; create one"
        else:
            return chapps
        self.warnings.append(f"{self._place('CHAPPS', 'password')} {why} with chapps-cli admin passcode")
        return dataclasses.replace(chapps, password=Secret(""))

    def _secret(self, section: Any, name: str) -> Secret:
        value, file = getattr(section, name), getattr(section, f"{name}_file")
        here, there = (section.section, name), (section.section, f"{name}_file")
        if value and file and (here in self.variables) != (there in self.variables):
            # The environment overrides the file, whichever of the two options it sets.
            value, file = (value, "") if here in self.variables else ("", file)
        if not file:
            return Secret(value)
        if value:
            self.problems.append(f"{self._place(*there)} = {file!r}: {name} is set too; remove one of them")
            return Secret("")
        try:
            found = Path(file).read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = explain(file, error) if isinstance(error, OSError) else error
            self._unreadable(*there, file, f"a readable file ({why})")
            return Secret("")
        if not found or "\n" in found:
            self._unreadable(*there, file, "a file that contains one line, the password")
        return Secret(found)


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Return the line number of each option, and of each section (option ``""``), as configparser parses them."""
    found: dict[tuple[str, str], int] = {}
    section, name, level = "", "", 0
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        indent = len(line) - len(line.lstrip())
        if not content or content[0] in "#;" or (name and indent > level):
            continue
        level = indent
        if header := re.match(r"\[(.+)\]", content):
            section, name = " ".join(header[1].split()), ""
        else:
            name = re.split("[=:]", content, maxsplit=1)[0].strip().lower()
        found[section, name] = number
    return found


def _is_link(variable: str, value: str) -> bool:
    """Whether Kubernetes sets a variable for a service."""
    return bool(_LINK.fullmatch(variable) or re.match("(tcp|udp|sctp)://", value))


def _kind_of(section: str) -> type[Listener | RateLimit] | None:
    """Return the class of a section ``[KIND NAME]``; ``None`` for other sections."""
    words = section.split(None, 1)
    return next((kind for kind in (Listener, RateLimit) if len(words) == 2 and words[0] == kind.section), None)


def _name_in(section: str) -> str:
    return section.split(None, 1)[1].strip()


def options(kind: type[Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((each.name, each.metadata) for each in fields(kind) if each.metadata)


def _names(kind: type[Any]) -> list[str]:
    return [name for name, _ in options(kind)]
