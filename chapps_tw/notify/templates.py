"""The templates of mails: the built-in ones, and those of the administrator, which replace them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined

from chapps_tw.interfaces.events import RULE_EVENTS, SERVICE_EVENTS

_SUBJECT: Final = "Subject:"
_MAX_SUBJECT: Final = 200
_MAX_BODY: Final = 200_000


class Text(NamedTuple):
    """The text of a mail.

    :ivar subject: one line.
    """

    subject: str
    body: str


class TemplateProblem(Exception):
    """A template cannot be used. The message is part of a sentence."""


class Templates:
    """Renders mails. A template begins with the line of the subject, and an empty line.

    :param directory: of templates that replace the built-in ones of the same name; may be ``""``.
    """

    def __init__(self, directory: str) -> None:
        loaders = [FileSystemLoader(directory)] if directory else []
        built_in = PackageLoader("chapps_tw.notify")
        self._names = built_in.list_templates()
        self._environment = Environment(
            loader=ChoiceLoader([*loaders, built_in]),
            # Mails are plain text.
            autoescape=False,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        self._environment.filters["moment"] = _in_words

    def render(self, name: str, values: Mapping[str, Any]) -> Text:
        """Return the text of a mail.

        :param name: of the template, such as ``user_at_limit``.
        :raises TemplateProblem: if the template is missing or wrong.
        """
        try:
            rendered = self._environment.get_template(f"{name}.txt").render(values)
        except Exception as error:
            # An expression in a template can raise anything.
            line = f"line {error.lineno}: " if hasattr(error, "lineno") else ""
            raise TemplateProblem(f"{name}.txt: {line}{' '.join(str(error).split())[:200]}") from None
        first, _, body = rendered.partition("\n")
        if not first.startswith(_SUBJECT) or body[:1] != "\n":
            raise TemplateProblem(f"{name}.txt: must begin with a line 'Subject: ...', and an empty line")
        return Text(" ".join(first.removeprefix(_SUBJECT).split())[:_MAX_SUBJECT], body[1:][:_MAX_BODY])

    def problems(self, samples: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
        """Yield what is wrong with templates.

        :param samples: the values of each.
        """
        for name, values in samples.items():
            try:
                self.render(name, values)
            except TemplateProblem as problem:
                yield str(problem)


def template_of(channel: str, kind: str) -> str:
    """Return the name of the template of an event, or of another notice."""
    return "admin_event" if kind in (*RULE_EVENTS, *SERVICE_EVENTS) else f"{channel}_{kind}"


def _in_words(time: datetime) -> str:
    return time.strftime("%H:%M on %A, %-d %B %Y (%Z)")
