"""Policies that are replaced are freed at once, with all that they remember."""

from __future__ import annotations

import gc
import tempfile
import weakref
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from pathlib import Path
from shutil import rmtree

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from chapps_tw.application.application import Application
from chapps_tw.config.limits import RateLimit, parse_window
from chapps_tw.config.settings import API, Chapps, Listener, Log, OutboundQuotaPolicy, SenderDomainAuthPolicy, Settings
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.slots import Answer
from chapps_tw.postfix.run import Run
from tests.support.policy_client import inbound, outbound
from tests.support.servers.service import Book

OUT = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy", "RateLimitPolicy")
MX = ("SPFEnforcementPolicy", "GreylistingPolicy")
FLOOD = RateLimit("flood", per="client", amount=50, window=parse_window("1h"))


class FreeTests(TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(rmtree, self.folder)
        self.settings = Settings(
            chapps=Chapps(data_dir=self.folder),
            api=API(listen=""),
            log=Log(file=""),
            limits=(FLOOD,),
            sda=SenderDomainAuthPolicy(own_address=True),
            own_listeners=(
                Listener("out", f"unix:{self.folder}/out", OUT),
                Listener("mx", f"unix:{self.folder}/mx", MX),
            ),
        )
        self.application = Application(self.settings, reactor)
        self.application.open()
        self.application.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.application.stop()))
        with Book(f"sqlite:///{Path(self.folder, 'chapps.sqlite3')}") as book:
            book.user("ann@example.com", 100, ["example.com"])
            book.domain("example.net", greylist=True)

    def ask(self, listener: str, request: Mapping[str, str]) -> Awaitable[Answer]:
        answered: Deferred[Answer] = Deferred()
        pipeline = self.application.factories[listener].pipeline
        Run(pipeline, OutboundPPR(request, cfg=self.application.settings), answered.callback).start()
        return answered

    async def test_they_are_freed_without_the_garbage_collector(self) -> None:
        for _ in range(3):
            # At the second time, all is found in memory.
            ann = {"sasl_username": "ann@example.com", "sender": "ann@example.com"}
            self.assertEqual((await self.ask("out", outbound(**ann))).decision.action, "DUNNO")
            self.assertEqual((await self.ask("out", outbound(sender="x@example.org"))).decision.action[:6], "REJECT")
            foreign = inbound(recipient="bob@example.net", helo_name="[203.0.113.9]", sender="")
            self.assertEqual((await self.ask("mx", foreign)).decision.action[:5], "DEFER")
        made = self.application.pipelines.current
        former = [
            weakref.ref(each)
            for pipeline in made.pipelines.values()
            for each in (pipeline, *(slot.policy for slot in pipeline.asked(OutboundPPR(inbound()), [])))
        ]
        self.assertEqual(len(former), len(OUT) + len(MX) + 2)
        del made
        gc.disable()
        self.addCleanup(gc.enable)
        await self.application.use(replace(self.settings, oqp=OutboundQuotaPolicy(warn_at=50)))
        self.assertEqual([each() for each in former], [None] * len(former))
