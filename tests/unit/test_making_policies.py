"""Creating policies by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from twisted.internet.defer import Deferred

from chapps_tw.application.policies import Policies
from chapps_tw.config.settings import ConfigError, SenderDomainAuthPolicy, Settings, SPFEnforcementPolicy
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events
from chapps_tw.policies.registry import BUILT_IN, Registry
from chapps_tw.policies.spec import Dependencies
from tests.support.policy_case import PolicyCase

OUTBOUND = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy")
INBOUND = ("SPFEnforcementPolicy", "GreylistingPolicy")


class Other:
    """A policy of another author, with the name of one of ours."""

    name = "SenderDomainAuthPolicy"
    looks = 3

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        return Decision("DUNNO", Reason.NO_USER, self.name)

    explain = decide


class MakingPolicies(PolicyCase):
    def make(self, settings: Settings | None = None, **changed: Any) -> Policies:
        """Of our own registry, or of one whose sender authorization is declared otherwise."""
        clock = self.clock.seconds
        events = Events(self.state, clock, clock, Deferred.fromCoroutine, lambda event: None)
        use = Dependencies(
            settings or Settings(), self.state, self.book, self.check, "mx.example.com", clock, clock, events, self.fail
        )
        specs = [replace(spec, **changed) if spec.name == Other.name else spec for spec in BUILT_IN.specs]
        return Policies(Registry(specs, {Other.name: "weight 1.2"} if changed else {}), use, self.clock.seconds)

    async def check(self, client: str, helo: str, sender: str) -> SpfResult:
        raise AssertionError("nothing is asked here")

    def test_slots_follow_the_section_and_the_declaration(self) -> None:
        policies = self.make(
            Settings(
                sda=replace(SenderDomainAuthPolicy(), mode="shadow"),
                spf=replace(SPFEnforcementPolicy(), on_failure="defer"),
            )
        )
        found = {name: policies.slot(name)[1:] for name in (*OUTBOUND, *INBOUND)}
        self.assertEqual(
            found,
            {
                "SenderDomainAuthPolicy": (True, False, False, False),
                "OutboundQuotaPolicy": (False, False, False, False),
                "SPFEnforcementPolicy": (False, False, True, False),
                "GreylistingPolicy": (False, True, True, False),
            },
        )

    def test_the_caches_of_created_policies_are_listed_by_label(self) -> None:
        policies = self.make()
        made = [policies.slot(name).policy for name in (*INBOUND, "GreylistingPolicy")]
        names = ("spf_flags", "greylist_flags", "greylist_flags")
        self.assertEqual(policies.caches, list(zip(names, made, strict=True)))

    def test_the_time_limit_includes_the_extra_time_of_all_policies(self) -> None:
        self.assertEqual(self.make().time_limit(OUTBOUND), 2.0)
        self.assertEqual(self.make().time_limit(INBOUND), 22.0)
        longer = self.make(extra_time=lambda settings: settings.oqp.interval)
        self.assertEqual(longer.time_limit((*INBOUND, *OUTBOUND)), 86422.0)

    def test_errors_of_plug_ins_name_the_package(self) -> None:
        def fails(use: object) -> float:
            raise ZeroDivisionError("oops")

        for words, changed in {
            "it cannot be made: ZeroDivisionError: oops": {"make": fails},
            "what its make returned has no misses": {"make": lambda use: Other(), "cache": "x"},
            "must have the name SenderDomainAuthPolicy": {"make": BUILT_IN["OutboundQuotaPolicy"].make},
            "its extra_time fails: ZeroDivisionError: oops": {"extra_time": fails},
            "its extra_time fails: TypeError": {"extra_time": lambda settings: None},
        }.items():
            policies = self.make(**cast(dict[str, Any], changed))
            with self.assertRaises(ConfigError) as caught:
                policies.slot(Other.name)
                policies.time_limit(OUTBOUND)
            (problem,) = caught.exception.problems
            self.assertTrue(problem.startswith("package weight 1.2: policy SenderDomainAuthPolicy: "), problem)
            self.assertIn(words, problem)

    def test_configuration_errors_of_a_policy_are_not_reworded(self) -> None:
        def refuses(use: Dependencies) -> Other:
            raise ConfigError(["[X] y: must be z"])

        with self.assertRaises(ConfigError) as caught:
            self.make(make=refuses).slot(Other.name)
        self.assertEqual(caught.exception.problems, ["[X] y: must be z"])
