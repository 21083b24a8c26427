"""Buttons: the actions that apply to what a card shows."""

from __future__ import annotations

from typing import NamedTuple

from chapps_tw.ui.acting import ACTIONS
from chapps_tw.ui.views import Visit, url


class Button(NamedTuple):
    """A link to the question of an action.

    :ivar can: whether the visitor's token may do it.
    """

    title: str
    url: str
    can: bool
    danger: bool


def button(visit: Visit, action: str, title: str = "", **values: object) -> Button:
    """Return the button of an action.

    :param values: what it is about.
    """
    found = ACTIONS[action]
    can = visit.can(*found.route)
    return Button(title or found.title, url(f"act/{action}", **values), can, found.danger)
