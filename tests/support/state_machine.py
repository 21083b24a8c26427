"""Random steps on several LiveStates side by side, and on a model that is plainly right.

A model keeps everything for ever and works each answer out anew. Steps are synchronous, so that a state whose answers
take a reactor can be driven from a thread.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from chapps_tw.interfaces.state import LiveState
from tests.support.examples import examples

START = 1_700_000_000.0


class Subject(NamedTuple):
    """A state to be compared.

    :ivar run: waits for an answer.
    :ivar advance: lets its time go on.
    :ivar close: puts it away.
    """

    name: str
    state: LiveState
    run: Callable[[Awaitable[Any]], Any]
    advance: Callable[[float], None]
    close: Callable[[], None]


class Comparison(RuleBasedStateMachine):
    """Subjects and their time. :func:`compare` makes a class of a machine's that has subjects."""

    factories: tuple[Callable[[], Subject], ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.subjects = [make() for make in self.factories]

    def teardown(self) -> None:
        for subject in self.subjects:
            subject.close()

    def same(self, expected: Any, ask: Callable[[LiveState], Awaitable[Any]]) -> None:
        """Ask each subject, and compare what it answers."""
        for subject in self.subjects:
            answer = comparable(subject.run(ask(subject.state)))
            assert answer == comparable(expected), (subject.name, answer, expected)

    def each(self, do: Callable[[LiveState], Awaitable[Any]]) -> list[Any]:
        return [subject.run(do(subject.state)) for subject in self.subjects]

    def go_on(self, seconds: float) -> None:
        self.now += seconds
        for subject in self.subjects:
            subject.advance(seconds)


def comparable(answer: Any) -> Any:
    """Return an answer without its token, times to the millisecond."""
    if hasattr(answer, "outcome") and hasattr(answer, "token"):
        answer = answer[:-1]
    if isinstance(answer, list | tuple):
        return tuple(comparable(part) for part in answer)
    return round(answer, 3) if isinstance(answer, float) else answer


def compare(steps_of: type[Comparison], *factories: Callable[[], Subject], tries: int = 100, steps: int = 40) -> None:
    """Drive new subjects through random steps, and fail where one is not as the model.

    Blocks; where answers come from a running reactor, to be called in a thread.

    :param factories: make the subjects of each example; their time begins at :data:`START`.
    :param tries: examples; see :func:`~tests.support.examples.examples`.
    """
    machine = type(steps_of.__name__, (steps_of,), {"factories": factories})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples(tries),
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
