"""`python -m zerofs.testing.protocol [guard ...]`: the shortest way to trouble without each, or each named, guard."""

import sys
from dataclasses import replace

from zerofs.testing.protocol.cases import GUARDS


def main(names: list[str]) -> None:
    """Search without one guard after the other, and print the ways."""
    for name in names or GUARDS:
        print(f"without {name}: {replace(GUARDS[name], without=(name,)).search()}\n", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
