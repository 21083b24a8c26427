"""What changes when the configuration is read again: what takes effect at once, and what after a restart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from chapps_tw.config.load import contradictions, options
from chapps_tw.config.render import as_text
from chapps_tw.config.settings import SECRETS, SECTIONS, ConfigError, Listener, Settings
from chapps_tw.config.values import Secret

# Hexadecimal digits of a digest.
_DIGITS = 12


def in_force(running: Settings, loaded: Settings) -> Settings:
    """Return the loaded settings, with the running values of options that take effect after a restart.

    :raises ConfigError: if the loaded values conflict with the running ones.
    """
    parts: dict[str, Any] = {name: _kept(getattr(running, name), getattr(loaded, name)) for name in SECTIONS}
    parts |= _secrets(running)
    added = tuple(map(_kept, running.added, loaded.added))
    found = replace(loaded, **parts, added=added, own_listeners=_listeners(running, loaded))
    if problems := list(_conflicts(found)):
        raise ConfigError(problems)
    return found


def _kept(running: Any, loaded: Any) -> Any:
    """Return a section with the running values of options that take effect after a restart."""
    kept = {name: getattr(running, name) for name, metadata in options(type(loaded)) if metadata["restart"]}
    return replace(loaded, **kept)


def _secrets(running: Settings) -> dict[str, Secret]:
    """Return the secrets that take effect after a restart."""
    late = [field for field, (section, name) in SECRETS.items() if _is_late(SECTIONS[section], name)]
    return {field: getattr(running, field) for field in late}


def _is_late(kind: type[Any], name: str) -> bool:
    return bool(dict(options(kind))[name]["restart"])


def _listeners(running: Settings, loaded: Settings) -> tuple[Listener, ...]:
    """Return the listeners that run, with the loaded policies."""
    found = {each.name: each for each in loaded.own_listeners}
    return tuple(_kept(each, found.get(each.name, each)) for each in running.own_listeners)


def _conflicts(settings: Settings) -> Iterator[str]:
    for found in contradictions(settings):
        where = f"{settings.path or 'built-in configuration'}: [{found.section}] {found.option}"
        remedy = "or restart the service, since options that take effect after a restart have to change first"
        yield f"{where} = {found.value!r}: {found.words}; {remedy}"


def differences(before: Settings, after: Settings) -> list[str]:
    """Return the options that differ, as ``[SECTION] OPTION``, and the sections that only one of them has.

    Of a password or key in a file, this is the option that names the file. No values are returned.
    """
    old, new = _options(before), _options(after)
    found = [each for each in {**old, **new} if old.get(each) != new.get(each)]
    old_sections, new_sections = _sections(old), _sections(new)
    lone = old_sections ^ new_sections
    names = [f"[{section}]" if section in lone else f"[{section}] {name}" for section, name in found]
    return list(dict.fromkeys([*names, *_secrets_that_differ(before, after)]))


def _sections(values: Mapping[tuple[str, str], object]) -> set[str]:
    return {section for section, _ in values}


def _secrets_that_differ(before: Settings, after: Settings) -> Iterator[str]:
    for field, (section, name) in SECRETS.items():
        now = getattr(after, section)
        if getattr(before, field) != getattr(after, field) and getattr(now, f"{name}_file"):
            yield f"[{now.section}] {name}_file"


def _options(settings: Settings) -> dict[tuple[str, str], object]:
    """Return the values of all options, by the title of the section and the name of the option."""
    sections: Sequence[tuple[str, Any]] = [
        *((each.section, each) for each in settings.sections),
        *((f"Limit {each.name}", each) for each in settings.limits),
        *((f"Listener {each.name}", each) for each in settings.own_listeners),
    ]
    return {(title, name): getattr(each, name) for title, each in sections for name, _ in options(type(each))}


def late_listeners(running: Sequence[str], loaded: Settings) -> list[str]:
    """Return the default listeners that begin or end after a restart, as ``listener NAME``.

    :param running: names of the listeners that run.
    """
    if loaded.own_listeners:
        return []
    wanted = [each.name for each in loaded.listeners]
    return [f"listener {name}" for name in dict.fromkeys([*running, *wanted]) if (name in running) != (name in wanted)]


def digest_of(settings: Settings) -> str:
    """Return a digest of all options but the secrets: equal for equal configurations, on every node."""
    found = hashlib.sha256()
    for (title, name), value in sorted(_options(settings).items()):
        if not isinstance(value, Secret):
            found.update(f"[{title}] {name} = {as_text(value, ' ')}\n".encode("utf-8", "backslashreplace"))
    return found.hexdigest()[:_DIGITS]
