"""Which objects a full verification has done, so that one that was interrupted goes on. A file of lines, appended to.

    zerofs verify 1
    NAME SIZE            one for each object in which everything was found good

Objects never change, so what was good stays good until somebody damages it: a verification that has come to its end
removes the file, and the next one reads everything again.
"""

import hashlib
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_HEAD = "zerofs verify 1\n"


class Verified:
    """The memory of one verification. `path` None keeps it in this process only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._done: set[str] = set()
        self._fd = -1

    @classmethod
    def of_volume(cls, state_dir: Path, volume_id: bytes, url: str) -> "Verified":
        """That of the volume at an address; two copies of one volume are two."""
        place = hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:8]
        return cls(state_dir / "verify" / f"{volume_id.hex()}-{place}")

    def resume(self) -> int:
        """Take up what an interrupted verification left. Returns how many objects that were; damaged lines are none."""
        if self._path is None:
            return 0
        try:
            head, *lines = self._path.read_text("ascii", "replace").splitlines(keepends=True)
        except (OSError, ValueError):
            return 0
        if head == _HEAD:
            self._done = {line.rstrip("\n") for line in lines if line.endswith("\n")}
        return len(self._done)

    def has(self, name: str, size: int) -> bool:
        """Whether the object was verified."""
        return f"{name} {size}" in self._done

    def add(self, name: str, size: int) -> None:
        """The object was verified. A failing local disk costs the memory, never the verification."""
        line = f"{name} {size}"
        self._done.add(line)
        if self._path is None:
            return
        try:
            if self._fd < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._fd = os.open(self._path, how, 0o600)
                os.write(self._fd, (_HEAD + "".join(f"{known}\n" for known in sorted(self._done))).encode("ascii"))
            else:
                os.write(self._fd, f"{line}\n".encode("ascii"))
        except OSError as error:
            log.warning("%s: what was verified cannot be remembered: %s", self._path, error.strerror or error)
            self._path = None

    def finish(self) -> None:
        """The verification came to its end: the next one starts anew."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
