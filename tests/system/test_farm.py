"""A farm of two nodes under load, whose Redis master and whose first node are taken away."""

from __future__ import annotations

from tests.support import farm


def test_a_farm_gives_no_wrong_answer_and_loses_no_replicated_count() -> None:
    lines: list[str] = []
    farm.run(lines.append)
    steps = ("starting", "manual failover: ", "master killed: ", "node restarted: ")
    assert [step for step in steps if any(line.startswith(step) for line in lines)] == list(steps), lines
    assert lines[-1].endswith("no wrong answer")
