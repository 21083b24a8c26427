"""Checks of ``[Notify]``: options that are missing, and options without effect."""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error
from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import urlsplit

from chapps_tw.config.checks import Finding
from chapps_tw.config.settings import Notify, Settings
from chapps_tw.config.values import Secret

_SECTION = Notify.section
_PREFIX = "whsec_"
_LEAST_KEY = 16


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Find errors: options that others require, and invalid secrets."""
    notify = settings.notify
    if notify.sends_mail and not notify.from_address:
        yield _finding("from_address", "", "must be set while mail is sent", *_mail_options(notify))
    if (notify.admin_events or notify.daily_report != "off") and not notify.admin_address:
        others = ("admin_events",) if notify.admin_events else ("daily_report",)
        yield _finding("admin_address", "", f"must be set while {others[0]} is", *others)
    if notify.relay_user and not settings.relay_password:
        yield _finding("relay_user", notify.relay_user, "needs relay_password or relay_password_file", "relay_password")
    if notify.relay_user and notify.relay_tls == "none" and not _is_local(notify.relay.host):
        words = "sends the password unencrypted: must be starttls or tls while relay_user is set"
        yield _finding("relay_tls", "none", words, "relay_user", "relay")
    yield from _of_webhook(settings)


def _of_webhook(settings: Settings) -> Iterator[Finding]:
    notify, key = settings.notify, settings.webhook_secret
    if notify.webhook_events and not notify.webhook:
        yield _finding("webhook", "", "must be set while webhook_events is", "webhook_events")
    if notify.webhook and not is_url(notify.webhook):
        words = "must be a URL that begins with https:// or http://, without a user or a fragment"
        yield _finding("webhook", notify.webhook, words)
    if notify.webhook and not key:
        yield _finding("webhook_secret", "", "or webhook_secret_file must be set while webhook is", "webhook")
    elif key and not webhook_key(key):
        option = "webhook_secret_file" if notify.webhook_secret_file else "webhook_secret"
        value = notify.webhook_secret_file or key
        words = f"must hold {_PREFIX} and base64, or other text, of at least {_LEAST_KEY} bytes"
        yield _finding(option, value, words)


def warnings(settings: Settings) -> Iterator[Finding]:
    """Find options without effect."""
    notify = settings.notify
    if notify.relay_ca_file and notify.relay_tls == "none":
        yield _finding("relay_ca_file", notify.relay_ca_file, "has no effect while relay_tls is none", "relay_tls")
    if notify.webhook and not notify.webhook_events:
        yield _finding("webhook", notify.webhook, "has no effect: webhook_events is empty", "webhook_events")
    if notify.webhook.startswith("http:") and not _is_local(urlsplit(notify.webhook).hostname or ""):
        yield _finding("webhook", notify.webhook, "is not encrypted: everybody on the way can read who sends what")
    if notify.user_events and settings.oqp.warn_at == 0:
        words = "have no effect on quotas: [OutboundQuotaPolicy] warn_at is 0"
        yield Finding(
            _SECTION, "user_events", " ".join(notify.user_events), words, ((settings.oqp.section, "warn_at"),)
        )


def is_url(text: str) -> bool:
    """Return whether a text is an absolute URL that can be posted to."""
    if not re.fullmatch(r"[!-~]{1,2000}", text):
        return False
    try:
        parts = urlsplit(text)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        return False
    return bool(parts.scheme in ("http", "https") and parts.hostname and has_port) and not (
        parts.username is not None or parts.fragment
    )


def webhook_key(secret: Secret) -> bytes:
    """Return the key of signatures; ``b""`` if it is invalid or too short."""
    text = str(secret)
    try:
        encoded = text.removeprefix(_PREFIX)
        key = b64decode(encoded, validate=True) if encoded != text else text.encode()
    except (Error, ValueError):
        return b""
    return key if len(key) >= _LEAST_KEY else b""


def _mail_options(notify: Notify) -> tuple[str, ...]:
    names = ("user_events", "admin_events", "daily_report")
    return tuple(name for name in names if getattr(notify, name) not in ((), "off"))


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _finding(option: str, value: object, words: str, *others: str) -> Finding:
    return Finding(_SECTION, option, value, words, tuple((_SECTION, each) for each in others))
