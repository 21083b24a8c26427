"""Certificate authorities of a file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from OpenSSL.SSL import Error as TLSError
from twisted.internet.ssl import Certificate, trustRootFromCertificates


def authorities(path: str) -> Any:
    """Load the certificate authorities of a PEM file.

    :raises ValueError: if there are none; says what the file must be.
    """
    try:
        pem = Path(path).read_bytes()
        found = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
        if not found:
            raise ValueError("it contains no certificate")
        certificates = [Certificate.loadPEM(each) for each in found]
        return trustRootFromCertificates(certificates)
    except (OSError, ValueError, TLSError) as problem:
        raise ValueError(f"must be a readable PEM file ({problem})") from None
