"""What the policies of a listener said about a request, for later ones that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from chapps_tw.interfaces.state import CacheVersion, Charge, LiveState
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.memo import Memo, size_of
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.slots import Pending, PolicySlot

# Size in bytes of what is remembered, of an entry without its key, and of a request that is too long.
_MAX_BYTES = 32 << 20
_ENTRY = 2000
_LONG = 8192


class Said(NamedTuple):
    """What all policies said: nothing stops the mail but a charge that does not fit.

    :ivar version: of the cached values that it relies on.
    :ivar decisions: those that are not pending.
    :ivar charges, reserve: of all that are pending.
    """

    version: CacheVersion
    user: str
    decisions: Sequence[Decision]
    pending: Sequence[Pending]
    charges: tuple[Charge, ...]
    reserve: float


class AskedBefore:
    """Remembers what was said until a cached value changes, and for at most as long as a version lives.

    Requests are alike if they have the same values of all attributes that the policies depend on. Most mail of a user
    is alike.

    :ivar looks: number of requests.
    :ivar misses: number of those for which the policies were asked.
    """

    def __init__(self, slots: Sequence[PolicySlot], state: LiveState) -> None:
        self.looks = self.misses = 0
        self._state = state
        self._policies = len(slots)
        names = [getattr(slot.policy, "depends_on", ()) for slot in slots if not slot.inbound and not slot.shadow]
        # With two that most depend on anyway: request.select() takes at least two.
        all_known = len(names) == self._policies and all(names)
        self._attributes = tuple({*("protocol_state", "sender"), *sum(names, ())}) if all_known else ()
        self._memo: Memo[tuple[object, ...], Said] = Memo(_MAX_BYTES)

    def find(self, request: OutboundPPR) -> Said | None:
        """Return what was said about a request that is alike, and have this one rely on the same."""
        if not self._attributes:
            return None
        self.looks += 1
        said = self._memo.get(self._key(request))
        if said is None or said.version is not self._state.version():
            self.misses += 1
            return None
        request.recall(said.user, said.version)
        return said

    def keep(self, request: OutboundPPR, decisions: Sequence[Decision], pending: Sequence[Pending]) -> None:
        """Remember what was said about a request if it holds for all that are alike."""
        version = request.version
        if not self._attributes or not pending or version is None or request.alike != self._policies:
            return
        if request.text_bytes > _LONG:
            return
        charges: list[Charge] = []
        for each in pending:
            if each.decision.advisory:
                return
            charges += each.decision.charges
        reserve = min([each.decision.reserve for each in pending])
        said = Said(version, request.known_user, tuple(decisions), tuple(pending), tuple(charges), reserve)
        key = self._key(request)
        self._memo.keep(key, said, _ENTRY * len(charges) + size_of(key))

    def _key(self, request: OutboundPPR) -> tuple[object, ...]:
        # Postfix names the recipient of a whole message if there is one: whether it does matters, not which one it is.
        return (request.get("recipient") == "", *request.select(self._attributes))
