"""``compare_results.py COMMITTED NEW``: have the published numbers been made again? Fails and lists what differs.

A number may move by a tenth of its committed 95 % interval: another machine adds in another order. One without an
interval must agree to 0.001. Every committed number must be there again.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from cimp_core.errors import CimpError
from cimp_core.results import compare, read_results

SHARE_OF_INTERVAL = 0.1
WITHOUT_INTERVAL = 1e-3


def differences(committed: Iterable[Mapping], new: Iterable[Mapping]) -> list[str]:
    """One line for each number that is not the committed one within its tolerance, or was not made again."""
    committed, new = list(committed), list(new)
    widths = {row["name"]: row["high"] - row["low"] for row in committed if row["low"] is not None}
    tolerances = {row["name"]: WITHOUT_INTERVAL for row in committed}
    tolerances |= {name: SHARE_OF_INTERVAL * width for name, width in widths.items()}
    made = {(row["name"], row["profile"]) for row in new}
    lost = [row for row in committed if (row["name"], row["profile"]) not in made]
    return compare(committed, new, tolerances) + [f"{row['name']} ({row['profile']}): not made again" for row in lost]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("committed", type=Path)
    parser.add_argument("new", type=Path)
    arguments = parser.parse_args()
    for path in (arguments.committed, arguments.new):
        if not path.exists():
            sys.exit(f"{path}: no such results file")
    try:
        committed, new = read_results(arguments.committed), read_results(arguments.new)
    except CimpError as error:
        sys.exit(str(error))
    lines = differences(committed, new)
    print("\n".join(lines) or f"all {len(committed)} numbers are the committed ones, within their tolerances")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
