"""Validation of the declaration of a policy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from typing import Any

from chapps_tw.config.settings import SECTIONS, Listener, PolicySection, RateLimit
from chapps_tw.mail.decision import Reason, ReasonCode
from chapps_tw.policies.spec import Direction, PolicySpec

# Without separators: CHAPPS_<SECTION>_<OPTION> must be unambiguous.
_SECTION = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
# configparser converts option names to lower case.
_OPTION = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LABEL = re.compile(r"[a-z][a-z0-9_]{0,63}")


class SpecError(Exception):
    """A declaration is invalid. The text says why."""


def require_shape(spec: PolicySpec) -> None:
    """Check the type and the form of every field.

    :raises SpecError: for the first invalid one.
    """
    for wrong in (*_of_section(spec.section), *_of_reasons(spec.reasons), *_of_rest(spec)):
        raise SpecError(wrong)


def _of_section(kind: object) -> Iterator[str]:
    if not isinstance(kind, type) or not issubclass(kind, PolicySection) or not _is_frozen(kind):
        yield f"its section must be a frozen dataclass that inherits PolicySection, not {kind!r:.80}"
        return
    name = getattr(kind, "section", None)
    if not isinstance(name, str) or not _SECTION.fullmatch(name):
        yield f"the name of its section must consist of letters and digits, not {name!r:.80}"
        return
    # A parser or a check may raise anything.
    try:
        contradictions = list(kind().contradictions())
    except Exception as error:
        yield f"the defaults of its section [{name}] are invalid: {error}"
    else:
        for each in contradictions:
            yield f"the defaults of its section [{name}] conflict with each other: {each!r:.200}"
    yield from _of_options(kind, name)


def _of_options(kind: Any, name: str) -> Iterator[str]:
    options = [each.name for each in fields(kind) if {"default", "help", "parse", "separator"} <= each.metadata.keys()]
    for each in fields(kind):
        if each.name not in options or not _OPTION.fullmatch(each.name):
            yield f"{each.name} of its section [{name}] must be created by option(), and have a lower-case name"
    for wanted in ("mode", "on_failure"):
        if wanted not in options:
            yield f"its section [{name}] must have the option {wanted}"


def _is_frozen(kind: type[PolicySection]) -> bool:
    parameters = vars(kind).get("__dataclass_params__")
    return bool(parameters and parameters.frozen)


def _of_reasons(kind: object) -> Iterator[str]:
    if kind is None:
        return
    if not isinstance(kind, type) or not issubclass(kind, ReasonCode):
        yield f"its reasons must be a subclass of ReasonCode, not {kind!r:.80}"
        return
    for each in kind:
        if not _LABEL.fullmatch(each.value) or not each.meaning:
            yield f"its reason {each.value!r:.80} must consist of lower-case letters, digits and _, and have a meaning"


def _of_rest(spec: PolicySpec) -> Iterator[str]:
    if not isinstance(spec.direction, Direction):
        yield f"its direction must be a Direction, not {spec.direction!r:.80}"
    for name in ("make", "extra_time"):
        if not callable(getattr(spec, name)):
            yield f"its {name} must be a function"
    if spec.cache != "" and not (isinstance(spec.cache, str) and _LABEL.fullmatch(spec.cache)):
        yield f"its cache must consist of lower-case letters, digits and _, not {spec.cache!r:.80}"


def require_free(spec: PolicySpec, others: Collection[PolicySpec], packages: Mapping[str, str]) -> None:
    """Check that the name, the section and the reasons are not in use.

    :param packages: policy name to package, for policies that are not built in.
    :raises SpecError: if one is.
    """
    # Names of environment variables have no letter case.
    name = spec.name.lower()
    sections: tuple[type[Any], ...] = (*SECTIONS.values(), Listener, RateLimit)
    for other in others:
        if other.name.lower() == name:
            raise SpecError(f"a policy {other.name} exists already, in {packages.get(other.name, 'chapps-tw')}")
    if name in {kind.section.lower() for kind in sections}:
        raise SpecError(f"the section [{spec.name}] is not available: the configuration has one already")
    for kind in {Reason, *(other.reasons for other in others)} - {spec.reasons, None}:
        taken = {each.value for each in kind or ()} & {each.value for each in spec.reasons or ()}
        if taken:
            raise SpecError(f"a reason {min(taken)} exists already; use another code")
