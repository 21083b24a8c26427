"""The registry of policies, and invalid declarations."""

from __future__ import annotations

from importlib.metadata import EntryPoint, PathDistribution
from itertools import count
from pathlib import Path

import pytest

from chapps_tw.config.settings import SECTIONS, ConfigError, PolicySection
from chapps_tw.mail.decision import Reason
from chapps_tw.policies.registry import BUILT_IN, registry_of
from tests.support.policy_package import POLICY, install


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


_names = (f"weight{number}" for number in count())


def point(directory: Path, source: str = POLICY) -> EntryPoint:
    """The entry point of a package with a name of its own."""
    (found,) = PathDistribution(install(directory, source, next(_names))).entry_points
    return found


def problems(*points: EntryPoint) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        registry_of(points)
    return caught.value.problems


def test_every_policy_section_has_a_policy() -> None:
    kinds = [kind.section for kind in SECTIONS.values() if issubclass(kind, PolicySection)]
    assert kinds == [spec.name for spec in BUILT_IN.specs if spec.section not in BUILT_IN.added]
    assert BUILT_IN.reasons[: len(Reason)] == tuple(Reason)


def test_inbound_and_outbound_policies_are_distinguished() -> None:
    assert BUILT_IN.is_inbound(["SPFEnforcementPolicy", "GreylistingPolicy"])
    assert not BUILT_IN.is_inbound(["SPFEnforcementPolicy", "OutboundQuotaPolicy"])
    assert BUILT_IN.is_inbound(["RateLimitPolicy", "SPFEnforcementPolicy"])
    assert not BUILT_IN.is_inbound(["RateLimitPolicy"])


def test_a_package_registers_a_policy_with_section_and_reasons(here: Path) -> None:
    registry = registry_of([point(here)])
    assert registry.added[:-1] == BUILT_IN.added
    assert registry.added[-1].section == "WeightPolicy"
    assert registry.packages["WeightPolicy"].endswith(" 1.2")
    assert registry.reasons == (*BUILT_IN.reasons, "too_heavy")
    assert not registry.is_inbound(["WeightPolicy"])


def test_two_policies_of_a_package_can_share_reasons(here: Path) -> None:
    first = point(here)
    module = first.value.partition(":")[0]
    second = POLICY.replace("WeightPolicy", "SizePolicy").replace(", Reasons)", f", __import__('{module}').Reasons)")
    registry = registry_of([first, point(here, second)])
    assert {"SizePolicy", "WeightPolicy"} <= {spec.name for spec in registry.specs}
    assert registry.reasons == (*BUILT_IN.reasons, "too_heavy")


WRONG = {
    "import error": ("import nothing_like_this", "cannot be imported: ModuleNotFoundError: No module named 'nothing_l"),
    "ends the program": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "no attribute": (POLICY.replace("SPEC =", "SPECS ="), "cannot be imported: AttributeError: "),
    "no spec": ("SPEC = 'Policy'", "must name a PolicySpec, not 'Policy'"),
    "no section": (POLICY.replace("PolicySpec(Section", "PolicySpec(str"), "its section must be a frozen dataclass"),
    "not frozen": (POLICY.replace("(frozen=True)", ""), "its section must be a frozen dataclass"),
    "odd name": (POLICY.replace('= "WeightPolicy"', '= "Weight Policy"'), "of letters and digits, not 'Weight Pol"),
    "no mode": (POLICY.replace("mode: str", "modus: str"), "its section [WeightPolicy] must have the option mode"),
    "no option": (
        POLICY.replace('option("5", "Kilograms.", whole(1, 9))', "5"),
        "weight of its section [WeightPolicy]",
    ),
    "upper case": (POLICY.replace("weight:", "Weight:"), "and have a lower-case name"),
    "wrong default": (
        POLICY.replace('"5"', '"50"'),
        "the defaults of its section [WeightPolicy] are invalid: a who",
    ),
    "wrong defaults": (POLICY.replace('option("1"', 'option("7"'), "conflict with each other"),
    "no check": (POLICY.replace("self.least >", "self.lost >"), "the defaults of its section [WeightPolicy] are inv"),
    "no reasons": (POLICY.replace(", Reasons)", ", ['too_heavy'])"), "its reasons must be a subclass of ReasonCode"),
    "odd reason": (
        POLICY.replace('"too_heavy"', '"too heavy"'),
        "its reason 'too heavy' must consist of lower-case letters",
    ),
    "own reason": (POLICY.replace('"too_heavy"', '"no_quota"'), "a reason no_quota exists already"),
    "no direction": (POLICY.replace("Direction.OUTBOUND", "'outbound'"), "its direction must be a Direction"),
    "no factory": (POLICY.replace("lambda use: Policy()", "None"), "its make must be a function"),
    "odd cache": (
        POLICY.replace(", Reasons)", ", Reasons, cache='x y')"),
        "its cache must consist of lower-case letters",
    ),
    "own policy": (
        POLICY.replace('= "WeightPolicy"', '= "greylistingPolicy"'),
        "a policy GreylistingPolicy exists already, in chapps-tw",
    ),
    "own section": (POLICY.replace('= "WeightPolicy"', '= "Redis"'), "the section [Redis] is not available"),
    "listener": (POLICY.replace('= "WeightPolicy"', '= "Listener"'), "the section [Listener] is not available"),
}


@pytest.mark.parametrize("source, words", WRONG.values(), ids=WRONG)
def test_an_invalid_declaration_is_rejected_with_package_and_remedy(here: Path, source: str, words: str) -> None:
    wrong = point(here, source)
    (problem,) = problems(wrong)
    assert words in problem
    assert wrong.dist is not None
    name = wrong.dist.name
    assert problem.startswith(f"package {name} 1.2: entry point WeightPolicy = {wrong.value} of chapps_tw.policies: ")
    assert problem.endswith(f"remove it: pip uninstall {name}")


def test_a_duplicate_policy_names_the_other_package(here: Path) -> None:
    first, second = point(here), point(here)
    (problem,) = problems(first, second)
    assert first.dist is not None
    assert f"a policy WeightPolicy exists already, in {first.dist.name} 1.2" in problem


def test_two_packages_cannot_have_the_same_reason(here: Path) -> None:
    (problem,) = problems(point(here), point(here, POLICY.replace("WeightPolicy", "SizePolicy")))
    assert "a reason too_heavy exists already" in problem


def test_all_invalid_declarations_are_reported_at_once(here: Path) -> None:
    assert len(problems(point(here, "import nothing_like_this"), point(here), point(here, "SPEC = 1"))) == 2
