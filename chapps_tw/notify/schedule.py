"""When the daily report is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from chapps_tw.config.notify import TimeOfDay
from chapps_tw.notify.notice import DAILY_REPORT, Channel, Notice, notice

# A report that is later is left out.
_LATEST = timedelta(hours=1)


def report_due(time: TimeOfDay | str, now: float) -> Notice | None:
    """Return the notice of the daily report for an hour from its time on; it is the same on every node.

    :param time: in the time zone of the host; ``off`` for no report.
    :param now: epoch seconds.
    """
    if not isinstance(time, TimeOfDay):
        return None
    moment = datetime.fromtimestamp(now)
    start = moment.replace(hour=time.hour, minute=time.minute, second=0, microsecond=0)
    if not start <= moment < start + _LATEST:
        return None
    return notice(Channel.ADMIN, DAILY_REPORT, {"day": start.date().isoformat()}, start.timestamp())
