"""Points in time and durations in requests."""

from __future__ import annotations

import pytest

from chapps_tw.rest.moments import iso, parse_moment, parse_window

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("given", "epoch"),
    [
        (1_790_848_800, 1_790_848_800.0),
        (1_790_848_800.5, 1_790_848_800.5),
        ("1790848800.5", 1_790_848_800.5),
        ("2026-10-01T18:00:00+08:00", 1_790_848_800.0),
        ("2026-10-01t10:00:00z", 1_790_848_800.0),
    ],
)
def test_a_point_in_time_is_the_same_ahead_and_ago(given: object, epoch: float) -> None:
    moment = parse_moment(given)
    assert (moment.ahead(NOW), moment.ago(NOW)) == (epoch, epoch)


@pytest.mark.parametrize(
    ("given", "seconds"), [("1s", 1), ("90m", 5400), ("2h", 7200), ("3d", 259_200), ("2w", 1_209_600)]
)
def test_a_duration_leads_ahead_or_back_from_now(given: str, seconds: int) -> None:
    moment = parse_moment(given)
    assert (moment.ahead(NOW), moment.ago(NOW)) == (NOW + seconds, NOW - seconds)


@pytest.mark.parametrize("given", ["2026-10-01", "2026-10-01T18:00:00"])
def test_a_time_without_a_zone_is_refused_with_the_remedy(given: str) -> None:
    with pytest.raises(ValueError, match="time zone"):
        parse_moment(given)


@pytest.mark.parametrize(
    "given", ["", "soon", "0d", "3 d", "-3d", "1.5d", True, None, [], -1, float("inf"), float("nan"), 10**11, "9" * 12]
)
def test_anything_else_is_refused_with_the_accepted_forms(given: object) -> None:
    with pytest.raises(ValueError, match=r"must be epoch seconds, a time with its zone such as .*, or a duration"):
        parse_moment(given)


@pytest.mark.parametrize("given", ["0001-01-01T00:00:00+14:00", "5139-01-01T00:00:00Z", "1969-12-31T00:00:00Z"])
def test_a_time_that_cannot_be_stored_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="between the years 1970 and 5138"):
        parse_moment(given)


def test_a_window_is_seconds_or_a_duration() -> None:
    assert [parse_window(each) for each in (1, 3600, "10m", "366d", 366 * 86400)] == [
        1, 3600, 600, 366 * 86400, 366 * 86400,
    ]  # fmt: skip


@pytest.mark.parametrize("given", [0, -1, 366 * 86400 + 1, "367d", "53w", "1", "", 1.5, True, None])
def test_a_window_of_another_length_or_form_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="must be 1 to 31622400 seconds, or a duration up to 366d"):
        parse_window(given)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1790000000.25, "2026-09-21T14:13:20.250Z"),
        (1, "1970-01-01T00:00:01.000Z"),
        (253402300799, "9999-12-31T23:59:59.000Z"),
        (0, None),
        (0.0, None),
        (None, None),
        (1e12, None),
        (-1e15, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_epoch_seconds_are_shown_as_text_and_never_is_null(seconds: float | None, text: str | None) -> None:
    assert iso(seconds) == text
