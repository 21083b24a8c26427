"""The live state in SQLite answers as the models do, whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from chapps_tw.interfaces.state import Charge, Message, Spent, Usage, Window
from chapps_tw.state.sqlite import chunks, journal
from tests.contract.distinct_recipients import DistinctRecipientsContract
from tests.contract.reservations import ReservationContract
from tests.contract.spending import SpendingContract
from tests.contract.spending_many import ManyChargesContract
from tests.support.caching_steps import Caching
from tests.support.spending_model import SpendingModel
from tests.support.spending_steps import Spending
from tests.support.sqlite_subject import sqlite_subject
from tests.support.state_machine import START, compare


class ModelState:
    """The model of counting, with the answers of a LiveState."""

    def __init__(self) -> None:
        self.model = SpendingModel(START)

    def spend(self, message: Message, charges: Sequence[Charge]) -> Deferred[Spent]:
        return maybeDeferred(self.model.spend, message, charges)

    def peek(self, message: Message, charges: Sequence[Charge]) -> Deferred[Spent]:
        return maybeDeferred(self.model.peek, message, charges)

    def usage(self, windows: Sequence[Window]) -> Deferred[list[Usage]]:
        return maybeDeferred(self.model.usage, windows)

    def reset(self, windows: Sequence[Window]) -> Deferred[list[int]]:
        return maybeDeferred(self.model.reset, windows)


class ModelTests(SpendingContract, ManyChargesContract, DistinctRecipientsContract, ReservationContract, TestCase):
    """The model of counting itself keeps the promises that each store is tested for."""

    def setUp(self) -> None:
        self.state: Any = ModelState()

    def advance(self, seconds: float) -> None:
        self.state.model.now += seconds

    def another(self) -> Any:
        return self.state

    async def restart(self) -> None:
        """It is kept in memory alone."""


def test_sqlite_counts_as_the_model() -> None:
    compare(Spending, sqlite_subject, tries=60, steps=50)


def test_sqlite_counts_as_the_model_if_it_reads_each_account_again() -> None:
    compare(Spending, partial(sqlite_subject, max_bytes=0), tries=20, steps=50)


def test_sqlite_counts_as_the_model_if_it_reads_chunks_and_journal_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "SIZE", 2)
    monkeypatch.setattr(journal, "_STEP", 1)
    compare(Spending, partial(sqlite_subject, forgets=True), tries=15, steps=50)


def test_sqlite_caches_and_greylists_as_the_model() -> None:
    compare(Caching, sqlite_subject, tries=50, steps=50)
