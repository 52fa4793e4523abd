"""What this host has seen of a volume: the defence against being shown an older bucket (decision 0003, point 11).

One small text file per volume id, outside the cache because a cache may be deleted. Written without fsync: after a
power loss it may be a little behind, which only makes the check weaker, never wrong.

    <manifest id, 20 digits> <its put-id, hex> <its epoch, 10 digits> <that epoch's tag, hex>
    <WAL id, 20 digits> <its put-id, hex> <its epoch, 10 digits> <that epoch's tag, hex>

on one line, with one space between two fields and a newline at the end.
"""

import hashlib
import logging
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from zerofs.errors import ConfigError

log = logging.getLogger(__name__)

_HALF = rb"(\d{20}) ([0-9a-f]{32}) (\d{10}) ([0-9a-f]{16})"
_LINE = re.compile(_HALF + b" " + _HALF + b"\n")


class Claim(NamedTuple):
    """An epoch, told from another of the same number by its tag."""

    epoch: int
    tag: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class Seen:
    """The newest manifest and the newest acknowledged WAL object that this host knows of."""

    manifest_id: int
    manifest_put_id: bytes
    wal_id: int
    wal_put_id: bytes
    manifest_claim: Claim | None = None
    """The epoch that it was made under; None for the one that the witness was told."""
    wal_claim: Claim | None = None


class Witness:
    """The memory of one volume on this host. `folder` is the user's state directory for zerofs."""

    def __init__(self, folder: Path, volume_id: bytes) -> None:
        self._path = folder / f"{volume_id.hex()}.seen"
        self._fd = -1
        self._has_failed = False
        self.claim: Claim | None = None
        """Of a writer: the epoch that all its objects are made under."""

    def load(self) -> Seen | None:
        """What was seen last; None when this host never saw the volume.

        Raises ConfigError when the file is there and cannot be read: not to look would be to give up the check.
        """
        content = _read(self._path)
        if content is None:
            return None
        match = _LINE.fullmatch(content)
        if match is None:
            log.warning("%s is damaged; a roll-back of this volume would not be noticed once", self._path)
            return None
        return Seen(
            manifest_id=int(match[1]),
            manifest_put_id=_bytes(match[2]),
            manifest_claim=Claim(int(match[3]), _bytes(match[4])),
            wal_id=int(match[5]),
            wal_put_id=_bytes(match[6]),
            wal_claim=Claim(int(match[7]), _bytes(match[8])),
        )

    def record(self, seen: Seen) -> None:
        """Remember. A failing local disk costs the memory, never a request; it is told once."""
        manifest_claim, wal_claim = seen.manifest_claim or self.claim, seen.wal_claim or self.claim
        assert manifest_claim, "every manifest has an epoch"
        assert wal_claim, "every WAL object has an epoch"
        line = _half(seen.manifest_id, seen.manifest_put_id, manifest_claim) + b" "
        line += _half(seen.wal_id, seen.wal_put_id, wal_claim) + b"\n"
        try:
            if self._fd < 0:
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                os.ftruncate(self._fd, len(line))
            os.pwrite(self._fd, line, 0)
        except OSError as error:
            if not self._has_failed:
                log.warning("cannot remember the state of the volume in %s: %s", self._path, error.strerror or error)
            self._has_failed = True

    def raise_to(self, seen: Seen) -> None:
        """Remember what a reader verified, where it is newer than what is remembered by now: a writer may be faster.

        Both must be of one history. Between looking and writing nothing awaits; the race with a writer on this host
        that is left can only weaken the next check, until that writer's next sync.
        """
        known = self.load()
        if known is not None and known.manifest_id > seen.manifest_id:
            seen = replace(
                seen,
                manifest_id=known.manifest_id,
                manifest_put_id=known.manifest_put_id,
                manifest_claim=known.manifest_claim,
            )
        if known is not None and known.wal_id > seen.wal_id:
            seen = replace(seen, wal_id=known.wal_id, wal_put_id=known.wal_put_id, wal_claim=known.wal_claim)
        if seen != known:
            self.record(seen)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Places:
    """The store addresses where this host has seen a volume: an empty store there is a mistake, not a new volume.

    A disk that is not mounted, a bucket that was emptied, another bucket under the same name, another volume with the
    same password: none of them may silently take the place of the one that was there. One small file per address,
    named by its SHA-256, holding the volume id.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "places"

    def knows(self, url: str) -> bool:
        """Whether a volume was ever opened at this address. Raises ConfigError when the memory cannot be read."""
        return _read(self._path(url)) is not None

    def volume_at(self, url: str) -> str:
        """The id, in hexadecimal, of the volume that was last opened at this address; empty when it is not known.

        Raises ConfigError when the memory is there and cannot be read.
        """
        text = (_read(self._path(url)) or b"").decode("ascii", "replace").strip()
        return text if re.fullmatch("[0-9a-f]{32}", text) else ""

    def remember(self, url: str, volume_id: bytes) -> None:
        """A volume is here. A failing local disk costs the memory, never a mount."""
        if self.volume_at(url) == volume_id.hex():
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._path(url).write_text(volume_id.hex() + "\n")
        except OSError as error:
            log.warning("cannot remember that there is a volume at %s: %s", url, error.strerror or error)

    def _path(self, url: str) -> Path:
        return self._folder / hashlib.sha256(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _read(path: Path) -> bytes | None:
    """A file of this host's memory; None when there is none. Raises ConfigError naming it."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(
            f"{path}, where this host remembers what it has seen, cannot be read: {error.strerror or error}: correct "
            "its owner and mode, or remove it (a roll-back would not be noticed once)"
        ) from error


def _half(number: int, put_id: bytes, claim: Claim) -> bytes:
    return b"%020d %s %010d %s" % (number, put_id.hex().encode(), claim.epoch, claim.tag.hex().encode())


def _bytes(text: bytes) -> bytes:
    return bytes.fromhex(text.decode())
