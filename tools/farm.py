"""``make farm``: shows a farm of two nodes while its Redis master and a node are taken away (docs/how-to/farm.md)."""

from __future__ import annotations

import argparse
import sys
import time

from tests.support import farm


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="make farm", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is done (default %(default)s)")
    rounds: int = parser.parse_args().rounds
    begin = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - begin:6.1f} s  {line}", flush=True)

    try:
        farm.run(say, rounds)
    except farm.WrongAnswer as error:
        say(f"WRONG: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
