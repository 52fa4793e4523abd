"""The one formula for pauses between tries. Pure: the caller brings the randomness and does the sleeping."""

from typing import Protocol


class Randomness(Protocol):
    """As much of `random.Random` as this room needs."""

    def random(self) -> float:
        """A number from [0, 1)."""
        ...


def full_jitter_s(randomness: Randomness, failures: int, first_s: float, longest_s: float) -> float:
    """Seconds to pause after `failures` (1, 2, …) tries in a row: uniform in [0, min(longest, first * 2**(n-1))).

    Source: "full jitter" spreads clients that failed together better than any pause with a fixed part.
    """
    bound = min(longest_s, first_s * 2.0 ** min(failures - 1, 63))
    return randomness.random() * bound
