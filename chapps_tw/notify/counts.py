"""Numbers of notices, for the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

Kind: TypeAlias = tuple[str, str]
"""The channel and the kind of a notice."""


class Counts:
    """Numbers of notices by channel and kind.

    :ivar sent: taken by the relay or the webhook.
    :ivar failed: given up, or not kept because the outbox was full.
    :ivar pending: those of all nodes in the outbox, when it was last looked at.
    :param kinds: those that there may be, so that each is shown from the start.
    """

    def __init__(self, kinds: Iterable[Kind] = ()) -> None:
        self.sent: defaultdict[Kind, int] = defaultdict(int, dict.fromkeys(kinds, 0))
        self.failed: defaultdict[Kind, int] = defaultdict(int, self.sent)
        self.pending: Mapping[Kind, int] = dict(self.sent)

    def go_on(self, before: Counts) -> None:
        """Go on from the numbers of others that are replaced by these."""
        for kind in before.sent.keys() | before.failed.keys():
            self.sent[kind] += before.sent[kind]
            self.failed[kind] += before.failed[kind]
