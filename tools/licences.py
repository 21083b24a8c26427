"""Write docs/reference/licences.md: the licence of each locked package, as the package itself declares it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "licences.md"
LOCKS = ROOT / "requirements"

HEAD = """\
# Licences

CHAPPS-TW is under the MIT licence. These are the packages that `make lock` has locked in `requirements/`, and the
licences that they declare. Those of the first table are installed with the service, and are in the Debian package and
the image. (`chapps_tw/rest/assets` and `chapps_tw/ui/assets` name the licences of the libraries of the pages.)
"""


def main() -> None:
    service = locked("run.txt")
    others = (locked("test.txt") | locked("build.txt")) - service
    PAGE.write_text("\n".join([HEAD, *table("The service", service), "", *table("Tests and builds", others), ""]))


def locked(name: str) -> set[str]:
    """Return the names of the packages in a lock."""
    return set(re.findall(r"^([A-Za-z0-9._-]+)==", (LOCKS / name).read_text(), re.MULTILINE))


def table(title: str, packages: set[str]) -> list[str]:
    rows = [f"| {name} | {licence(name)} |" for name in sorted(packages)]
    return [f"## {title}", "", "| package | licence |", "|---|---|", *rows]


def licence(name: str) -> str:
    """Return the licence that an installed package declares.

    :raises SystemExit: if it is not installed, or declares none.
    """
    try:
        declared = metadata(name).json
    except PackageNotFoundError:
        raise SystemExit(f"{name} is not installed; run: make setup") from None
    expression = declared.get("license_expression")
    classifiers = [each for each in declared.get("classifier", []) if each.startswith("License :: ")]
    names = [each.rpartition(" :: ")[2] for each in classifiers if each != "License :: OSI Approved"]
    first, *_ = str(declared.get("license", "")).strip().splitlines() or [""]
    found = str(expression or ", ".join(names) or first)
    if not found:
        raise SystemExit(f"{name} declares no licence; look it up, and replace it if there is none")
    return found


if __name__ == "__main__":
    main()
