"""Whether what is counted at RCPT may be given back: the message may never be sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from chapps_tw.mail.memo import Memo
from chapps_tw.mail.request import PolicyRequest

# Seconds after which a listener counts as not asked about whole messages any more.
_REMEMBERED = 600.0

# There are few addresses and ports, but the texts come from outside.
_CACHE_BYTES = 256 << 10

SERVER: Final = ("server_address", "server_port")
"""What identifies a service of Postfix."""


class Reservations:
    """Learns whether one listener is asked about whole messages, which settles what was counted at RCPT.

    Each address and port of Postfix is learned by itself, since each may have its own restrictions.

    :param ttl: seconds after which a cost that was not settled is given back; 0.0 never gives back.
    :param monotonic: monotonic clock.
    """

    def __init__(self, ttl: float, monotonic: Callable[[], float]) -> None:
        self._ttl = ttl
        self._monotonic = monotonic
        self._whole: Memo[tuple[str, ...], float] = Memo(_CACHE_BYTES)

    def of(self, request: PolicyRequest, stage: str) -> float:
        """Return ``reserve`` of a :class:`~chapps_tw.interfaces.state.Message`; learn from requests about whole ones.

        :param stage: RCPT, DATA or END-OF-MESSAGE.
        """
        if not self._ttl:
            return 0.0
        server, moment = request.select(SERVER), self._monotonic()
        end = self._whole.get(server, moment)
        if stage == "RCPT":
            return self._ttl if moment < end else 0.0
        if end - moment < _REMEMBERED / 2:
            self._whole.keep(server, moment + _REMEMBERED)
        return 0.0
