"""What this host has seen of a volume: the defence against being shown an older bucket (decision 0003, point 11).

One small text file per volume id, outside the cache because a cache may be deleted. Written without fsync: after a
power loss it may be a little behind, which only makes the check weaker, never wrong.

    <manifest id, 20 digits> <its put-id, hex> <WAL id, 20 digits> <its put-id, hex> newline
"""

import hashlib
import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_LINE = re.compile(rb"(\d{20}) ([0-9a-f]{32}) (\d{20}) ([0-9a-f]{32})\n")


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """The newest manifest and the newest acknowledged WAL object that this host knows of."""

    manifest_id: int
    manifest_put_id: bytes
    wal_id: int
    wal_put_id: bytes


class Witness:
    """The memory of one volume on this host. `folder` is the user's state directory for zerofs."""

    def __init__(self, folder: Path, volume_id: bytes) -> None:
        self._path = folder / f"{volume_id.hex()}.seen"
        self._fd = -1

    def load(self) -> Seen | None:
        """What was seen last; None when this host never saw the volume."""
        try:
            match = _LINE.fullmatch(self._path.read_bytes())
        except FileNotFoundError:
            return None
        if match is None:
            log.warning("%s is damaged; a roll-back of this volume would not be noticed once", self._path)
            return None
        return Seen(
            manifest_id=int(match[1]),
            manifest_put_id=bytes.fromhex(match[2].decode()),
            wal_id=int(match[3]),
            wal_put_id=bytes.fromhex(match[4].decode()),
        )

    def record(self, seen: Seen) -> None:
        """Remember. A failing local disk costs the memory, never a request."""
        line = b"%020d %s %020d %s\n" % (
            seen.manifest_id,
            seen.manifest_put_id.hex().encode(),
            seen.wal_id,
            seen.wal_put_id.hex().encode(),
        )
        try:
            if self._fd < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._fd, line, 0)
        except OSError as error:
            log.warning("cannot remember the state of the volume in %s: %s", self._path, error)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Places:
    """The store addresses where this host has seen a volume: an empty store there is a mistake, not a new volume.

    A disk that is not mounted, a bucket that was emptied, another bucket under the same name: none of them may
    silently become a second, empty volume. One small file per address, named by its SHA-256, holding the volume id.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "places"

    def knows(self, url: str) -> bool:
        """Whether a volume was ever opened at this address."""
        return self._path(url).exists()

    def remember(self, url: str, volume_id: bytes) -> None:
        """A volume is here. A failing local disk costs the memory, never a mount."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path(url).write_text(volume_id.hex() + "\n")
        except OSError as error:
            log.warning("cannot remember that there is a volume at %s: %s", url, error)

    def _path(self, url: str) -> Path:
        return self._folder / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]
