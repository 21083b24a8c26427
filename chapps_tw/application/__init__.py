"""All parts, made and joined."""

from chapps_tw import __version__

VERSION = f"CHAPPS-TW v{__version__}"
