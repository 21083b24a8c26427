"""Numbers of notices, for the metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

Kind: TypeAlias = tuple[str, str]
"""The channel and the kind of a notice."""


class Counts:
    """Numbers of notices by channel and kind.

    :ivar sent: taken by the relay or the webhook.
    :ivar failed: given up, or not kept because the outbox was full.
    :ivar pending: those of all nodes in the outbox, when it was last looked at.
    """

    def __init__(self) -> None:
        self.sent: defaultdict[Kind, int] = defaultdict(int)
        self.failed: defaultdict[Kind, int] = defaultdict(int)
        self.pending: Mapping[Kind, int] = {}
