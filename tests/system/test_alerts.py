"""The alert rules and the dashboard, checked by promtool."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT
from tests.support.servers.common import program

CONF = ROOT / "conf"
RULES = CONF / "prometheus" / "chapps.rules.yml"

INSTANCE = 'job="chapps",instance="mx1:8080"'
LABELS = {"instance": "mx1:8080", "job": "chapps"}


# There since the beginning.
BUILD = (f'chapps_build_info{{{INSTANCE},version="1"}}', "1x400")


def promtool(*arguments: str) -> None:
    """Run it.

    :raises AssertionError: with what it says, when it has something to say against its input.
    """
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def decided(
    reason: str, values: str, listener: str = "outbound", policy: str = "OutboundQuotaPolicy"
) -> tuple[str, str]:
    """A series of decisions."""
    labels = f'listener="{listener}",policy="{policy}",action="DUNNO",reason="{reason}",mode="enforce"'
    return f"chapps_decisions_total{{{INSTANCE},{labels}}}", values


def answered(slow: int, listener: str = "outbound", seconds: str = "2.5") -> list[tuple[str, str]]:
    """Series of a hundred answers a minute, some of which took longer than a second."""
    bucket = f'chapps_answer_seconds_bucket{{{INSTANCE},listener="{listener}",le='
    return [
        (f'{bucket}"0.1"}}', f"0+{100 - slow}x400"),
        (f'{bucket}"1.0"}}', f"0+{100 - slow}x400"),
        (f'{bucket}"{seconds}"}}', "0+100x400"),
        (f'{bucket}"+Inf"}}', "0+100x400"),
    ]


# Alert, series (a value each minute), at how many minutes it is silent, at how many it fires, and the labels.
CASES: list[tuple[str, list[tuple[str, str]], int, int, dict[str, str]]] = [
    ("ChappsMissing", [(f"up{{{INSTANCE}}}", "1x10 0x20")], 12, 14, LABELS),
    ("ChappsMissing", [], 1, 3, {"job": "chapps"}),
    (
        "ChappsDependencyDown",
        [(f'chapps_up{{{INSTANCE},part="database"}}', "1x10 0x20")],
        12,
        14,
        {**LABELS, "part": "database"},
    ),
    ("ChappsAnswersSlow", answered(2), 3, 10, {**LABELS, "listener": "outbound"}),
    (
        "ChappsSpfAnswersSlow",
        [*answered(2, "inbound", "25.0"), decided("spf_pass", "0+50x400", "inbound", "SPFEnforcementPolicy")],
        10,
        20,
        {**LABELS, "listener": "inbound"},
    ),
    *(
        (
            "ChappsTemporaryFailures",
            [decided("within_quota", "0+97x400"), decided(reason, "0+0x10 0+3x30")],
            10,
            20,
            {**LABELS, "listener": "outbound"},
        )
        for reason in ("state_unavailable", "book_unavailable", "timed_out", "policy_failed")
    ),
    (
        "ChappsDnsFailing",
        [
            (f'chapps_cache_lookups_total{{{INSTANCE},cache="dns",result="miss"}}', "0+10x60"),
            (f"chapps_dns_failures_total{{{INSTANCE}}}", "0+0x10 0+8x50"),
        ],
        15,
        40,
        LABELS,
    ),
    ("ChappsChangesNotInForce", [(f"chapps_waiting_drops{{{INSTANCE}}}", "0x10 4x20")], 14, 17, LABELS),
    ("ChappsLogLinesLost", [(f"chapps_log_lines_lost_total{{{INSTANCE}}}", "0x10 7x20")], 10, 12, LABELS),
    (
        "ChappsNoticesFailed",
        [(f'chapps_notices_failed_total{{{INSTANCE},channel="user",kind="at_limit"}}', "0x10 7x20")],
        10,
        12,
        {**LABELS, "channel": "user"},
    ),
    ("ChappsProcessesFail", [(f"chapps_process_restarts_total{{{INSTANCE}}}", "0x10 7x20")], 10, 12, LABELS),
    ("ChappsHistoryLost", [(f"chapps_history_lost_total{{{INSTANCE}}}", "0x10 7x20")], 10, 12, LABELS),
    ("ChappsQuotaRefusalsRise", [BUILD, decided("quota_exceeded", "0+4x300 1200+100x60")], 300, 330, LABELS),
    ("ChappsQuotaRefusalsRise", [BUILD, decided("quota_exceeded", "_x100 0+60x60")], 100, 130, LABELS),
]

# What is no reason to call anybody.
QUIET: list[tuple[str, list[tuple[str, str]]]] = [
    ("ChappsAnswersSlow", answered(0)),
    (
        "ChappsAnswersSlow",
        [*answered(5, "inbound"), decided("spf_pass", "0+50x400", "inbound", "SPFEnforcementPolicy")],
    ),
    ("ChappsSpfAnswersSlow", answered(5, seconds="25.0")),
    ("ChappsTemporaryFailures", [decided("within_quota", "0+1000x400"), decided("timed_out", "0+1x400")]),
    ("ChappsTemporaryFailures", [decided("within_quota", "5x400"), decided("timed_out", "9x400")]),
    ("ChappsTemporaryFailures", [decided("within_quota", "0+9x400"), decided("quota_exceeded", "0+9x400")]),
    ("ChappsQuotaRefusalsRise", [BUILD, decided("quota_exceeded", "0+100x400")]),
    ("ChappsQuotaRefusalsRise", [BUILD, decided("quota_exceeded", "0+0x300 0+5x100")]),
]


def run(folder: Path, series: list[tuple[str, str]], checks: dict[str, Any]) -> None:
    """Have promtool run the rules on series of a value each minute.

    :raises AssertionError: when they do not come to what is expected.
    """
    tests = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        **checks,
    }
    path = folder / "test.yml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [tests]}))
    promtool("test", "rules", str(path))


def firing(alert: str, minute: int, labels: dict[str, str] | None) -> dict[str, Any]:
    """The check that an alert fires at a time, with these labels and its severity; or, without, that it does not."""
    samples = []
    if labels is not None:
        all_labels = {"alertname": alert, "alertstate": "firing", "severity": severity(alert), **labels}
        shown = ",".join(f'{name}="{value}"' for name, value in all_labels.items())
        samples = [{"labels": f"ALERTS{{{shown}}}", "value": 1}]
    expression = f'ALERTS{{alertname="{alert}",alertstate="firing"}}'
    return {"expr": expression, "eval_time": f"{minute}m", "exp_samples": samples}


def rules() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def severity(alert: str) -> str:
    return str(rules()[alert]["labels"]["severity"])


@pytest.mark.parametrize("alert, series, silent, firing_at, labels", CASES)
def test_fires(
    tmp_path: Path, alert: str, series: list[tuple[str, str]], silent: int, firing_at: int, labels: dict[str, str]
) -> None:
    checks = [firing(alert, silent, None), firing(alert, firing_at, labels)]
    run(tmp_path, series, {"promql_expr_test": checks})


@pytest.mark.parametrize("alert, series", QUIET)
def test_stays_silent(tmp_path: Path, alert: str, series: list[tuple[str, str]]) -> None:
    checks = [firing(alert, minute, None) for minute in (5, 30, 60, 330, 380)]
    run(tmp_path, series, {"promql_expr_test": checks})


def test_every_alert_is_tested() -> None:
    assert {case[0] for case in CASES} == set(rules())


def test_alert_texts_are_rendered(tmp_path: Path) -> None:
    alert = {
        "exp_labels": {**LABELS, "listener": "outbound", "severity": "critical"},
        "exp_annotations": {
            "summary": "outbound at mx1:8080 cannot decide 25% of what it is asked.",
            "description": rules()["ChappsTemporaryFailures"]["annotations"]["description"],
        },
    }
    check = {"eval_time": "30m", "alertname": "ChappsTemporaryFailures", "exp_alerts": [alert]}
    series = [decided("within_quota", "0+75x60"), decided("timed_out", "0+25x60")]
    run(tmp_path, series, {"alert_rule_test": [check]})


def test_the_rules_are_accepted() -> None:
    promtool("check", "rules", str(RULES))


def test_the_example_of_prometheus_yml_is_accepted() -> None:
    promtool("check", "config", "--syntax-only", str(CONF / "prometheus" / "prometheus.yml.example"))


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((CONF / "grafana" / "chapps.json").read_text())["panels"]
    return found


def test_every_query_of_the_dashboard_is_valid(tmp_path: Path) -> None:
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    known = [re.sub(r"\$\w+", ".*", query.replace("$__rate_interval", "5m")) for query in queries]
    records = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(known)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": records}]}))
    promtool("check", "rules", str(path))


def test_the_dashboard_uses_the_selected_data_source_and_instances() -> None:
    dashboard = json.loads((CONF / "grafana" / "chapps.json").read_text())
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "instance", "listener"]
    for panel in panels():
        for target in panel.get("targets", ()):
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"].count('job="chapps", instance=~"$instance"') == target["expr"].count("{")


def test_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in panels()]
    assert len(ids) == len(set(ids))
