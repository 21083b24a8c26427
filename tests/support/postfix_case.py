"""A test with a Postfix of its own, and the same test with the Postfix of Debian 13."""

from __future__ import annotations

import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from tests.support.servers.debian import debian_13
from tests.support.servers.postfix import Postfix


class PostfixTestCase(unittest.TestCase):
    """Starts the Postfix of this system.

    :ivar postfix: the one that was started.
    :cvar ends_refused_transactions: whether Postfix ends a transaction that was refused at END-OF-MESSAGE: 3.10 does.
    """

    ends_refused_transactions: ClassVar[bool] = False

    def root(self) -> Path:
        """Return the root directory of the system whose Postfix it is."""
        return Path("/")

    def run_postfix(
        self,
        asked: Mapping[str, Sequence[str]],
        domains: Sequence[str] = ("example.com",),
        users: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Start it until the end of the test, see :class:`Postfix`."""
        self.postfix = Postfix(asked, domains, users, parameters, root=self.root())
        self.addCleanup(self.postfix.stop)


class Debian13TestCase(PostfixTestCase):
    """Starts the Postfix of Debian 13. To be the first base of a class that has the tests."""

    ends_refused_transactions = True

    def root(self) -> Path:
        return debian_13()
