"""The views of actions: each asks once, and says what will happen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routing import Refusal
from chapps_tw.ui import act_book, act_live, act_many, act_new, act_rules
from chapps_tw.ui.action import Action, Question
from chapps_tw.ui.views import Answer, Fields, Goto, Html, View, Visit, sentences

_MODULES = (act_live, act_rules, act_book, act_new, act_many)
ACTIONS = {each.name: each for module in _MODULES for each in module.ACTIONS}

# What an action may be about, several of each.
MAX_SUBJECTS = 1000


def views() -> Iterator[View]:
    """Return the views of all actions."""
    for action in ACTIONS.values():
        yield View("GET", f"/ui/act/{action.name}", partial(_ask, action))
        yield View("POST", f"/ui/act/{action.name}", partial(_act, action))


async def _ask(action: Action, visit: Visit) -> Answer:
    _check(action, visit)
    question = await action.ask(visit, visit.query)
    return _question(action, question, visit.query, visit.is_part)


async def _act(action: Action, visit: Visit) -> Answer:
    _check(action, visit)
    try:
        done = await action.act(visit, visit.form)
    except Exception as error:
        refusal = refusal_of(error)
        if refusal is None or refusal.status == 403:
            raise
        return await _again(action, visit, refusal)
    if visit.session is not None:
        visit.session.notices = [*visit.session.notices, *done.says][-20:]
    return Goto(done.url)


async def _again(action: Action, visit: Visit, refusal: Refusal) -> Answer:
    """Ask again after a refusal, with what was entered and what is wrong with it."""
    question = await action.ask(visit, visit.form)
    entered = [each._replace(value=visit.form[each.name]) for each in question.fields]
    problems = sentences(refusal)
    return _question(action, question._replace(fields=entered), visit.form, False, problems, refusal.status)


def _check(action: Action, visit: Visit) -> None:
    """Refuse what the token may not do, before anything is read.

    :raises Refusal: 403; 422 for too much at once.
    """
    scope = visit.calls.scope(*action.route)
    if not visit.may(scope):
        raise Refusal(403, f"{action.title}: this needs a token with scope {scope}.")
    if any(len(fields.all(name)) > MAX_SUBJECTS for fields in (visit.query, visit.form) for name in action.about):
        raise Refusal(422, f"At most {MAX_SUBJECTS} at once.")


def _question(
    action: Action,
    question: Question,
    about: Fields,
    is_part: bool,
    problems: Sequence[str] = (),
    status: int = 200,
) -> Html:
    hidden = [(name, value) for name in action.about for value in about.all(name) if value]
    values = {"action": action, "question": question, "hidden": hidden, "problems": problems}
    return Html("question.html" if is_part else "act.html", values, status)
