"""What may be tuned in the filesystem."""

from dataclasses import dataclass

from zerofs.units import MIB


@dataclass(slots=True, frozen=True, kw_only=True)
class FilesystemOptions:
    """Limits and behaviour of one mount; the root's owner counts only where the filesystem is made."""

    max_size_bytes: int | None = None
    """The quota: ENOSPC above it. None = none."""

    read_only: bool = False
    """Every change is refused with EROFS, and nothing is committed."""

    noatime: bool = False
    """Reads leave the access time alone. Otherwise relatime: once a day, or after a change."""

    root_uid: int = 0
    """Owner of the root directory of a new filesystem."""

    root_gid: int = 0
    """Group of the root directory of a new filesystem."""

    writeback_interval_s: float = 5.0
    """A dirty filesystem is synced that often."""

    inode_cache_count: int = 16384
    """Inodes kept in memory although nobody refers to them, about; twice that at most. 600 bytes each.

    As many rows of those that were only listed, 350 bytes each at most.
    """

    dentry_cache_count: int = 32768
    """Names remembered, present and absent, about; twice that at most. 300 bytes each."""

    read_ahead_bytes: int = 8 * MIB
    """How far in front of readers data is fetched, at most, all together."""

    max_links: int = (1 << 32) - 1
    """Names of one inode, and 2 + subdirectories of one directory. EMLINK above it."""
