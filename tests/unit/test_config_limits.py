"""[Limit NAME]: values, errors, and limits without effect."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from chapps_tw.config.limits import MAX_LIMITS, Condition, parse_match, parse_window
from chapps_tw.config.render import render
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import Unit
from tests.support.config_case import problems, read
from tests.support.paths import ROOT

BASE = "per = client\namount = 3\nwindow = 10m\n"
FLOOD = f"[Limit flood]\n{BASE}"


def warned(tmp_path: Path, text: str) -> list[str]:
    return [each for each in read(tmp_path, text).warnings if "Limit" in each]


def test_a_limit_has_the_values_of_its_section(tmp_path: Path) -> None:
    (limit,) = read(
        tmp_path,
        "[Limit flood]\nper = client_network\nunit = messages\namount = 100\nwindow = 10m\n"
        "match = sasl_username:empty, client_address:!192.0.2.0/24\naction = hold\nmode = shadow\nwarn_at = 0\n",
    ).limits
    assert (limit.name, limit.per, limit.unit, limit.amount) == ("flood", "client_network", Unit.MESSAGES, 100)
    assert (limit.window.seconds, limit.action, limit.mode, limit.warn_at) == (600, "hold", "shadow", 0)
    assert limit.match == (
        Condition("sasl_username", "", None, False),
        Condition("client_address", "", ip_network("192.0.2.0/24"), True),
    )


def test_the_examples_of_the_sample_configuration_and_the_guide_are_valid(tmp_path: Path) -> None:
    sample = [line.removeprefix("# ") for line in render(Settings()).splitlines()]
    guide = (ROOT / "docs" / "how-to" / "limit-anything.md").read_text().splitlines()
    for lines in (sample, [line.strip("`") for line in guide]):
        start = lines.index("[Limit flood]")
        (limit,) = read(tmp_path, "\n".join(lines[start : lines.index("", start)])).limits
        assert (limit.per, limit.unit, limit.amount, limit.action) == ("client_network", Unit.MESSAGES, 100, "defer")
        assert str(limit.match[1]) == "client_address:!192.0.2.0/24"


def test_distinct_recipients_are_not_counted_without_end(tmp_path: Path) -> None:
    text = "[Limit people]\nper = client\nunit = distinct_recipients\namount = {}\nwindow = 10m\n"
    assert read(tmp_path, text.format(100_000)).limits[0].amount == 100_000
    (found,) = problems(tmp_path, text.format(100_001))
    assert "[Limit people] amount = '100001': must be at most 100000 with unit = distinct_recipients" in found


def test_rendered_limits_load_unchanged(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        f"{FLOOD}match = sender:@Example.COM, helo_name:*.dyn.example, recipient:!a@b.example, sasl_username:EMPTY\n"
        "action = 450 4.7.1 Slow down, {retry_in}\n"
        "[Limit year]\nper = everybody\nunit = bytes\namount = 999999999999\nwindow = 52W\n"
        "[RateLimitPolicy]\nlimits = year, flood\n",
    )
    again = read(tmp_path, render(settings))
    assert again == settings
    assert [limit.name for limit in again.limits] == ["flood", "year"]


@pytest.mark.parametrize(
    ("text", "seconds", "words"),
    [
        ("1s", 1, "1 second"),
        ("90s", 90, "90 seconds"),
        ("10m", 600, "10 minutes"),
        ("1h", 3600, "1 hour"),
        ("1 D", 86400, "1 day"),
        ("2w", 1209600, "2 weeks"),
        ("366d", 366 * 86400, "366 days"),
    ],
)
def test_windows(text: str, seconds: int, words: str) -> None:
    found = parse_window(text)
    assert (found.seconds, found.words) == (seconds, words)


@pytest.mark.parametrize("text", ["", "0s", "90", "1.5h", "-1h", "1y", "367d", "53w", "999999999999s", "1h30m", "٣h"])
def test_other_windows_are_errors(tmp_path: Path, text: str) -> None:
    (found,) = problems(tmp_path, f"[Limit flood]\nper = client\namount = 3\nwindow = {text}\n")
    assert "[Limit flood] window = " in found
    assert "must be a whole number with a unit, such as 90s" in found


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("sender:Bob@Example.ORG", "bob@example.org"),
        ("sender:@Bücher.example", "@xn--bcher-kva.example"),
        ("helo_name:*.Example.org.", ".example.org"),
        ("Client_Name : .example.org", ".example.org"),
        ("sasl_username:empty", ""),
        ("recipient:a:b@example.org", "a:b@example.org"),
    ],
)
def test_patterns_are_in_normal_form(text: str, pattern: str) -> None:
    (found,) = parse_match(text)
    assert (found.pattern, found.negated) == (pattern, False)
    (negated,) = parse_match(text.replace(":", ":!", 1))
    assert negated == Condition(found.attribute, pattern, None, True)
    assert parse_match(str(negated)) == (negated,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sender", "attribute:pattern"),
        ("sender:", "attribute:pattern"),
        ("sender:!", "attribute:pattern"),
        ("sender:a@b.example,", "attribute:pattern"),
        ("sendr:a@b.example", "did you mean sender?"),
        ("client_address:192.0.2.1/24", "has host bits set"),
        ("client_address:.example.org", "an address, a network such as 192.0.2.0/24, or empty"),
        ("helo_name:.-", "a value, @example.com, .example.com or empty"),
        ("helo_name:*.*.example", "a value, @example.com, .example.com or empty"),
        (", ".join(["sender:a"] * 51), "at most 50 conditions"),
    ],
)
def test_invalid_conditions_are_errors_with_their_remedy(tmp_path: Path, text: str, words: str) -> None:
    (found,) = problems(tmp_path, f"{FLOOD}match = {text}\n")
    assert "line 5: [Limit flood] match = " in found
    assert words in found


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("per = clint", "did you mean client?"),
        ("per =", "it cannot be empty"),
        ("unit = mesages", "did you mean messages?"),
        ("amount = -1", "a whole number from 0"),
        ("action = defr", "did you mean defer?"),
        ("action = DUNNO", "to try a limit out, use mode = shadow"),
        ("action = OK", "to try a limit out, use mode = shadow"),
        ("action = 450", "followed by a text"),
        ("action = 450 4.7.1 {user}", "without braces other than"),
        ("message = {user}", "without braces other than {used}"),
        (f"message = {'x' * 500}", "a text of 1 to "),
        ("message =", "a text of 1 to "),
        ("mode = off", "one of enforce, shadow"),
        ("warn_at = 101", "a whole number from 0 to 100"),
        ("amunt = 3", "did you mean amount?"),
        ("action = REJECT no\nmessage = Wait", "has no effect while action is"),
    ],
)
def test_invalid_options_are_errors_with_their_remedy(tmp_path: Path, option: str, words: str) -> None:
    name = option.partition(" =")[0]
    rest = "".join(f"{line}\n" for line in BASE.splitlines() if not line.startswith(f"{name} "))
    (found,) = problems(tmp_path, f"[Limit flood]\n{rest}{option}\n")
    assert "[Limit flood] " in found
    assert words in found


def test_a_limit_needs_what_it_counts_how_much_and_in_which_time(tmp_path: Path) -> None:
    found = problems(tmp_path, "[Limit flood]\n")
    assert sorted(line.partition("] ")[2].partition(" =")[0] for line in found) == ["amount", "per", "window"]


def test_names_are_plain_and_unique(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"[Limit one/two]\n{BASE}")
    assert "must have a name of at most 64 letters" in found
    (found,) = problems(tmp_path, f"[Limit a]\n{BASE}[Limit  a]\n{BASE}")
    assert "is a duplicate" in found
    (found,) = problems(tmp_path, f"[Limmit a]\n{BASE}")
    assert "unknown section [Limmit a]; did you mean Limit NAME?" in found


def test_the_number_of_limits_is_bounded(tmp_path: Path) -> None:
    sections = [f"[Limit n{number}]\n{BASE}" for number in range(MAX_LIMITS)]
    assert len(read(tmp_path, "".join(sections)).limits) == MAX_LIMITS
    (found,) = problems(tmp_path, "".join([*sections, f"[Limit more]\n{BASE}"]))
    assert f"there may be {MAX_LIMITS}" in found and "[Limit more]" in found


def test_the_policy_names_limits_that_exist(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, f"{FLOOD}[RateLimitPolicy]\nlimits = flod\n")
    assert "there is no section [Limit flod]; did you mean flood?" in found


def test_limits_have_a_listener_of_their_own_if_there_are_any(tmp_path: Path) -> None:
    assert "limits" not in [listener.name for listener in Settings().listeners]
    listener = read(tmp_path, FLOOD).listeners[-1]
    assert (listener.name, listener.policies) == ("limits", ("RateLimitPolicy",))
    assert listener.listen == "tcp:10228:interface=127.0.0.1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[RateLimitPolicy]\nlisten =\n", "has no effect: no listener has RateLimitPolicy"),
        (
            f"[RateLimitPolicy]\nlimits = other\n[Limit other]\n{BASE}",
            "has no effect: [RateLimitPolicy] limits does not name flood",
        ),
    ],
)
def test_a_limit_that_no_listener_applies_is_a_warning(tmp_path: Path, text: str, words: str) -> None:
    (found,) = warned(tmp_path, FLOOD + text)
    assert "[Limit flood] per = 'client': " in found
    assert words in found


def test_a_policy_without_limits_is_a_warning(tmp_path: Path) -> None:
    (found,) = warned(tmp_path, "[Listener one]\nlisten = tcp:1\npolicies = RateLimitPolicy\n")
    assert "limits nothing: there is no section [Limit NAME]" in found


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("unit = bytes\nmatch = protocol_state:RCPT", "bytes are known only at END-OF-MESSAGE"),
        ("unit = bytes\nmatch = protocol_state:!END-OF-MESSAGE", "bytes are known only at END-OF-MESSAGE"),
        ("match = protocol_state:MAIL", "never applies: recipients are known only at DATA and"),
        ("match = client_address:empty", "without client_address there is no client to count"),
    ],
)
def test_a_limit_that_can_never_apply_is_a_warning(tmp_path: Path, options: str, words: str) -> None:
    (found,) = warned(tmp_path, f"{FLOOD}{options}\n")
    assert "[Limit flood] match = " in found
    assert words in found


@pytest.mark.parametrize(
    "options",
    [
        "unit = bytes\nmatch = protocol_state:END-OF-MESSAGE",
        "match = protocol_state:RCPT, protocol_state:CONNECT",
        "match = protocol_state:!RCPT, client_address:!empty, sasl_username:empty",
    ],
)
def test_a_limit_that_can_apply_is_none(tmp_path: Path, options: str) -> None:
    assert warned(tmp_path, f"{FLOOD}{options}\n") == []


def test_a_limit_of_bytes_for_each_recipient_is_a_warning(tmp_path: Path) -> None:
    (found,) = warned(tmp_path, "[Limit big]\nper = recipient\nunit = bytes\namount = 3\nwindow = 1d\n")
    assert "applies only to messages with one recipient" in found
