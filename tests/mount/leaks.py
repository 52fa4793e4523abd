"""Finding secrets where they must not be: does any 16-byte window of one occur anywhere?

Exact and fast enough for every byte of a store. A window of 16 bytes, wherever it lies in a haystack, covers one whole
block of 8 bytes that is aligned there; so it is enough to cut the haystack into aligned blocks, look each of them up
among the 8-byte windows of all secrets, and look closely at the few that match.
"""

import array
import base64
import re
import sys
from collections.abc import Iterable, Mapping

WINDOW = 16
_BLOCK = 8


class Leaks:
    """Secrets by name; `find` looks for all of them at once. Each is also looked for as hex and as base64."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        self._forms: dict[str, bytes] = {}
        for name, secret in secrets.items():
            assert len(secret) >= WINDOW, f"{name} is too short to be looked for"
            self._forms |= {
                name: secret,
                f"{name} (hex)": secret.hex().encode(),
                f"{name} (base64)": base64.b64encode(secret),
            }
        self._blocks: set[int] = set()
        for form in self._forms.values():
            for shift in range(_BLOCK):
                self._blocks |= _blocks(form[shift:])

    def find(self, haystacks: Iterable[tuple[str, bytes]]) -> list[str]:
        """Which secrets are where, in words; empty if there is none anywhere."""
        found = []
        for place, body in haystacks:
            suspects = [block.to_bytes(_BLOCK, sys.byteorder) for block in _blocks(body) & self._blocks]
            for name, form in self._forms.items():
                if any(_share_window(body, form, block) for block in suspects):
                    found.append(f"{place} holds 16 bytes of {name}")
        return found


def _blocks(body: bytes) -> set[int]:
    return set(array.array("Q", body[: len(body) // _BLOCK * _BLOCK]))


def _share_window(body: bytes, form: bytes, block: bytes) -> bool:
    """Whether a whole window around a block of `form` is in `body`."""
    return any(
        form[start : start + WINDOW] in body
        for found in re.finditer(re.escape(block), form)
        for start in range(max(0, found.start() - _BLOCK), found.start() + 1)
        if start + WINDOW <= len(form)
    )
