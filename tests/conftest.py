"""For all tests."""

from __future__ import annotations

import signal

# A job in the background is started with it ignored, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
