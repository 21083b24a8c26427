"""Reading the chapps.ini of CHAPPS 0.5, of ``chapps.config`` in https://pypi.org/project/chapps/0.5.18/."""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, Final, NamedTuple

from chapps_tw.config.load import load
from chapps_tw.config.settings import OBSOLETE, PolicySection, Settings
from chapps_tw.config.values import Secret

# What CHAPPS 0.5 uses for options that its file does not have, where that is not what this version would use.
_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "adapter": {"adapter": "mariadb", "db_port": 3306, "db_pass": "chapps"},
    "redis": {"server": "localhost"},
}

_REASONS: Final = {
    ("SPFEnforcementPolicy", "whitelist"): "CHAPPS 0.5 did not use it; see [CHAPPS] helo_whitelist",
    ("CHAPPS", "listen_address"): "each policy has its own",
    ("CHAPPS", "listen_port"): "each policy has its own",
}
_BY_ITSELF: Final = "the program knows it"


class Older(NamedTuple):
    """A configuration of CHAPPS 0.5.

    :ivar settings: what it means, in the terms of this version.
    :ivar meaningless: sentences about options that have no effect.
    :ivar assumed: options that the file does not have, with what CHAPPS 0.5 uses: here, the default is another.
    :ivar undecided: sentences about what the administrator has to decide.
    """

    settings: Settings
    meaningless: list[str]
    assumed: list[str]
    undecided: list[str]


def load_older(path: str, added: Sequence[type[PolicySection]] = ()) -> Older:
    """Load a configuration of CHAPPS 0.5. The environment has no effect: its variables are those of this version.

    :param added: as for :func:`~chapps_tw.config.load.load`.
    :raises ConfigError: with all errors.
    """
    meaningless: list[str] = []
    settings = load(path, {}, added=added, unknown=lambda sentence: meaningless.append(f"{sentence}: it has no effect"))
    parser = configparser.RawConfigParser(default_section="")
    parser.read_string(settings.content.decode("utf-8-sig"))
    given = {(section, name) for section in parser.sections() for name in parser.options(section)}
    meaningless += [
        f"{path}: [{section}] {name} has no effect: {_REASONS.get((section, name), _BY_ITSELF)}"
        for section, name in sorted(OBSOLETE & given)
    ]
    undecided = [each for each in settings.warnings if "has no effect" not in each]
    settings, assumed = _with_defaults(settings, given)
    return Older(settings, meaningless, assumed, undecided)


def _with_defaults(settings: Settings, given: set[tuple[str, str]]) -> tuple[Settings, list[str]]:
    assumed = []
    for part, defaults in _DEFAULTS.items():
        section = getattr(settings, part)
        missing = {name: value for name, value in defaults.items() if (section.section, name) not in given}
        if part == "redis" and settings.uses_redis:
            missing = {}
        assumed += [f"[{section.section}] {name} = {value}" for name, value in missing.items()]
        if password := missing.get("db_pass"):
            missing["db_pass"] = Secret(password)
            settings = replace(settings, db_password=Secret(password))
        settings = replace(settings, **{part: replace(section, **missing)})
    return settings, assumed


def differences(older: Settings, newer: Settings) -> list[str]:
    """Return a sentence for each option with another value in a newer configuration; secrets are not shown."""
    found = []
    for old, new in zip(older.sections, newer.sections, strict=True):
        for each in fields(old):
            was, value = getattr(old, each.name), getattr(new, each.name)
            if each.metadata and was != value:
                is_secret = each.metadata["parse"] is Secret
                found.append(
                    f"[{old.section}] {each.name}" + (" differs" if is_secret else f" = {value}, and was {was}")
                )
    return found
