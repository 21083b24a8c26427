"""Trying: what each policy would say to a request, and why. It costs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from chapps_tw.mail.request import PROTOCOL_STATES
from chapps_tw.rest.refusals import refusal_of
from chapps_tw.ui.sentences import Teller
from chapps_tw.ui.views import Answer, Html, View, Visit, sentences

_ATTRIBUTES = {
    "user": "sasl_username",
    "sender": "sender",
    "recipient": "recipient",
    "client": "client_address",
    "helo": "helo_name",
    "stage": "protocol_state",
}


class Trying:
    """The view that explains a request.

    :param listeners: their names.
    """

    def __init__(self, teller: Teller, listeners: Sequence[str]) -> None:
        self._teller = teller
        self._listeners = listeners

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui/try", self.show)

    async def show(self, visit: Visit) -> Answer:
        asked = {name: visit.query[name] for name in (*_ATTRIBUTES, "listener")}
        values = {"asked": asked, "listeners": self._listeners, "stages": PROTOCOL_STATES}
        nothing: dict[str, object] = {"answer": None, "records": [], "remarks": [], "problems": []}
        attributes = {attribute: asked[name] for name, attribute in _ATTRIBUTES.items() if asked[name]}
        if not attributes:
            return Html("try.html", {**values, **nothing})
        try:
            reply = await visit.call("POST", "/live/explain/", attributes=attributes, listener=asked["listener"])
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            return Html("try.html", {**values, **nothing, "problems": sentences(refusal)}, refusal.status)
        answer = self._teller.tell(reply.beside["answer"])
        told = [self._teller.tell(each) for each in reply.response]
        return Html("try.html", {**values, **nothing, "answer": answer, "records": told, "remarks": reply.remarks})
