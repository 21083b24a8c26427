"""What ``twistd chapps`` starts."""

from twisted.application.service import ServiceMaker

chapps = ServiceMaker(
    "CHAPPS-TW",
    "chapps_tw.service",
    "Answers Postfix's policy questions, and serves an HTTP API.",
    "chapps",
)
