"""Which policies there are, and what a package must not declare."""

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


def test_every_policy_section_of_the_settings_has_its_policy() -> None:
    kinds = [kind.section for kind in SECTIONS.values() if issubclass(kind, PolicySection)]
    assert kinds == [spec.name for spec in BUILT_IN.specs if spec.section not in BUILT_IN.added]
    assert BUILT_IN.reasons[: len(Reason)] == tuple(Reason)


def test_policies_for_mail_from_the_world_are_told_from_those_for_users() -> None:
    assert BUILT_IN.is_inbound(["SPFEnforcementPolicy", "GreylistingPolicy"])
    assert not BUILT_IN.is_inbound(["SPFEnforcementPolicy", "OutboundQuotaPolicy"])


def test_a_package_adds_a_policy_with_its_section_and_its_reasons(here: Path) -> None:
    registry = registry_of([point(here)])
    assert registry.added[:-1] == BUILT_IN.added
    assert registry.added[-1].section == "WeightPolicy"
    assert registry.packages["WeightPolicy"].endswith(" 1.2")
    assert registry.reasons == (*BUILT_IN.reasons, "too_heavy")
    assert not registry.is_inbound(["WeightPolicy"])


def test_two_policies_of_a_package_may_share_their_reasons(here: Path) -> None:
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
    "no spec": ("SPEC = 'Policy'", "must name a PolicySpec, which 'Policy' is not"),
    "no section": (POLICY.replace("PolicySpec(Section", "PolicySpec(str"), "its section must be a frozen dataclass"),
    "not frozen": (POLICY.replace("(frozen=True)", ""), "its section must be a frozen dataclass"),
    "odd name": (POLICY.replace('= "WeightPolicy"', '= "Weight Policy"'), "of letters and digits, which 'Weight Pol"),
    "no mode": (POLICY.replace("mode: str", "modus: str"), "its section [WeightPolicy] must have the option mode"),
    "no option": (
        POLICY.replace('option("5", "Kilograms.", whole(1, 9))', "5"),
        "weight of its section [WeightPolicy]",
    ),
    "upper case": (POLICY.replace("weight:", "Weight:"), "and have a name in lower case"),
    "wrong default": (
        POLICY.replace('"5"', '"50"'),
        "the defaults of its section [WeightPolicy] cannot be used: a who",
    ),
    "wrong defaults": (POLICY.replace('option("1"', 'option("7"'), "contradict each other"),
    "no check": (POLICY.replace("self.least >", "self.lost >"), "the defaults of its section [WeightPolicy] cannot be"),
    "no reasons": (POLICY.replace(", Reasons)", ", ['too_heavy'])"), "its reasons must be a subclass of ReasonCode"),
    "odd reason": (
        POLICY.replace('"too_heavy"', '"too heavy"'),
        "its reason 'too heavy' must be of lower-case letters",
    ),
    "own reason": (POLICY.replace('"too_heavy"', '"no_quota"'), "there is a reason no_quota already"),
    "no direction": (POLICY.replace("Direction.OUTBOUND", "'outbound'"), "its direction must be a Direction"),
    "no factory": (POLICY.replace("lambda use: Policy()", "None"), "its make must be a function"),
    "odd cache": (POLICY.replace(", Reasons)", ", Reasons, cache='x y')"), "its cache must be of lower-case letters"),
    "own policy": (
        POLICY.replace('= "WeightPolicy"', '= "greylistingPolicy"'),
        "there is a policy GreylistingPolicy already, of chapps-tw",
    ),
    "own section": (POLICY.replace('= "WeightPolicy"', '= "Redis"'), "there is a section [Redis] already"),
    "listener": (POLICY.replace('= "WeightPolicy"', '= "Listener"'), "there is a section [Listener] already"),
}


@pytest.mark.parametrize("source, words", WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_refused_with_its_package_and_a_remedy(here: Path, source: str, words: str) -> None:
    wrong = point(here, source)
    (problem,) = problems(wrong)
    assert words in problem
    assert wrong.dist is not None
    name = wrong.dist.name
    assert problem.startswith(f"package {name} 1.2: entry point WeightPolicy = {wrong.value} of chapps_tw.policies: ")
    assert problem.endswith(f"remove it: pip uninstall {name}")


def test_of_two_packages_with_the_same_policy_the_other_one_is_named(here: Path) -> None:
    first, second = point(here), point(here)
    (problem,) = problems(first, second)
    assert first.dist is not None
    assert f"there is a policy WeightPolicy already, of {first.dist.name} 1.2" in problem


def test_two_packages_may_not_have_the_same_reason(here: Path) -> None:
    (problem,) = problems(point(here), point(here, POLICY.replace("WeightPolicy", "SizePolicy")))
    assert "there is a reason too_heavy already" in problem


def test_all_that_cannot_be_used_is_told_at_once(here: Path) -> None:
    assert len(problems(point(here, "import nothing_like_this"), point(here), point(here, "SPEC = 1"))) == 2
