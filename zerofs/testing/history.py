"""The oracle of a simulated volume: which states it may show, and from which one on it must (P2, P3)."""

from dataclasses import dataclass, field

State = dict[bytes, bytes]
"""The model: path to contents; a directory ends in a slash and has none."""


class SimulationError(AssertionError):
    """The oracle was contradicted."""


@dataclass(slots=True)
class History:
    """Every state that the volume may show, oldest first, and from where on it must."""

    states: list[State] = field(default_factory=lambda: [{}])
    acknowledged: int = 0

    @property
    def now(self) -> State:
        """The newest state."""
        return self.states[-1]

    def settle(self, found: State) -> None:
        """Check what an opening found; it becomes the only possible past."""
        if found not in self.states[self.acknowledged :]:
            kind = "an older state than was acknowledged" if found in self.states else "a state that never was"
            raise SimulationError(f"{kind}: {sorted(found)} after {len(self.states)} operations")
        self.states = [found]
        self.acknowledged = 0
