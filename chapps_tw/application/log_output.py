"""The part for the decision log and its file."""

from __future__ import annotations

from typing import Any

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
        self.file = self._make_file()
        self.decisions: DecisionLog | None = None
        if self.file is not None:
            self.decisions = DecisionLog(FORMATS[settings.log.format].line, self.file.write, reactor.callLater)

    def _make_file(self) -> LogFile | None:
        path, form = self._settings.log.file, FORMATS[self._settings.log.format]
        if not path or (path == STANDARD_OUTPUT and self._output is not None):
            return self._output if path else None
        complaints = LogLimit(self.log.warn, self._reactor.seconds)
        return LogFile(path, form.loss, lambda text: complaints.warn("{text}", text=text))

    @property
    def lost(self) -> int:
        """The number of lines that could not be written, here or to standard output."""
        return sum(each.lost for each in {self.file, self._output} if each)

    def open(self) -> None:
        """Open the file."""
        if self.file is not None and self.file is not self._output:
            with opening(self._settings, "Log", "file", self._settings.log.file):
                self.file.open()
        if self._settings.log.file == STANDARD_OUTPUT and is_standard_output_discarded():
            self.log.warn("Decisions are logged to standard output, which goes nowhere: name a file in [Log] file.")

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
