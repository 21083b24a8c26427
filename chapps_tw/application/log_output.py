"""The part for the decision log and its file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import opening
from chapps_tw.config.settings import Settings
from chapps_tw.observe.decision_log import DecisionLog
from chapps_tw.observe.decision_record import FORMATS
from chapps_tw.observe.log_file import STANDARD_OUTPUT, LogFile, is_standard_output_discarded
from chapps_tw.observe.log_limit import LogLimit


class LogOutput(Part):
    """The decision log and its file.

    :ivar file: the log file, or ``None``.
    :ivar decisions: the decision log, or ``None`` without a file.
    :param output: the writer of standard output, if Twisted logs there.
    """

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, output: LogFile | None) -> None:
        self._settings = settings
        self._output = output
        self._reactor = reactor
        # Lines that files before the current one have lost.
        self._lost_before = 0
        self._use(settings, self._make_file(settings))

    def _make_file(self, settings: Settings) -> LogFile | None:
        path, form = settings.log.file, FORMATS[settings.log.format]
        if not path or (path == STANDARD_OUTPUT and self._output is not None):
            return self._output if path else None
        complaints = LogLimit(self.log.warn, self._reactor.seconds)
        return LogFile(path, form.loss, lambda text: complaints.warn("{text}", text=text))

    def _use(self, settings: Settings, file: LogFile | None) -> None:
        self._settings, self.file = settings, file
        self.decisions: DecisionLog | None = None
        if file is not None:
            self.decisions = DecisionLog(FORMATS[settings.log.format].line, file.write, self._reactor.callLater)

    @property
    def lost(self) -> int:
        """The number of lines that could not be written, here or to standard output."""
        return self._lost_before + sum(each.lost for each in {self.file, self._output} if each)

    def open(self) -> None:
        """Open the file."""
        self._open(self._settings, self.file)

    def _open(self, settings: Settings, file: LogFile | None) -> None:
        if file is not None and file is not self._output:
            with opening(settings, "Log", "file", settings.log.file):
                file.open()
        if settings.log.file == STANDARD_OUTPUT and is_standard_output_discarded():
            self.log.warn("Decisions are logged to standard output, which goes nowhere: name a file in [Log] file.")

    def prepare(self, settings: Settings) -> Callable[[], object]:
        if settings.log == self._settings.log:
            return partial(self._keep, settings)
        file = self._make_file(settings)
        self._open(settings, file)
        return partial(self._replace, settings, file)

    def _keep(self, settings: Settings) -> None:
        self._settings = settings

    def _replace(self, settings: Settings, file: LogFile | None) -> None:
        """Log to another file, and close the former one in a thread: it may be slow."""
        before = self.file
        if self.decisions is not None:
            self.decisions.flush()
        self._use(settings, file)
        if before is not None and before is not self._output:
            self._lost_before += before.lost
            deferToThreadPool(self._reactor, self._reactor.getThreadPool(), before.close)

    def reopen(self) -> None:
        """Reopen the file, which may have been renamed."""
        if self.file is not None:
            self.file.reopen()

    def stop(self) -> None:
        """Write the last lines."""
        if self.decisions is not None:
            self.decisions.flush()
        if self.file is not None and self.file is not self._output:
            self.file.close()
