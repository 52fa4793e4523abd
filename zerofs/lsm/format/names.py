"""Object names and the numbers that they spell (docs/format/objects.md).

    manifest/<20 digits>.manifest         ManifestId
    manifest/floor                        the lowest manifest id that may still be created
    wal/<20 digits>.sst                   WalId
    compacted/<10 digits>-<12 digits>.sst epoch and counter: SSTs of both families

Fixed width, so that the order of a LIST is the order of the numbers.
"""

import re

from zerofs.errors import CorruptionError
from zerofs.ids import ManifestId, WalId

SstId = tuple[int, int]
"""(epoch, counter): unique because one epoch has one writer and that writer counts."""

MANIFEST_PREFIX = "manifest/"
WAL_PREFIX = "wal/"
SST_PREFIX = "compacted/"
FLOOR_NAME = "manifest/floor"

MAX_EPOCH = 2**32 - 1
MAX_COUNTER = 10**12 - 1

_MANIFEST = re.compile(r"manifest/(\d{20})\.manifest")
_WAL = re.compile(r"wal/(\d{20})\.sst")
_SST = re.compile(r"compacted/(\d{10})-(\d{12})\.sst")


def manifest_name(manifest_id: int) -> str:
    """The object name of a manifest."""
    return f"{MANIFEST_PREFIX}{manifest_id:020d}.manifest"


def wal_name(wal_id: int) -> str:
    """The object name of a WAL object."""
    return f"{WAL_PREFIX}{wal_id:020d}.sst"


def sst_name(sst: SstId) -> str:
    """The object name of an SST of either family."""
    return f"{SST_PREFIX}{sst[0]:010d}-{sst[1]:012d}.sst"


def parse_manifest_name(name: str) -> ManifestId:
    """The id in a manifest's name. Raises CorruptionError for any other name."""
    return ManifestId(_number(_MANIFEST, name))


def is_manifest_name(name: str) -> bool:
    """Whether an object of this name is a manifest: neither the floor nor something that others left there."""
    return _MANIFEST.fullmatch(name) is not None


def parse_wal_name(name: str) -> WalId:
    """The id in a WAL object's name. Raises CorruptionError for any other name."""
    return WalId(_number(_WAL, name))


def parse_sst_name(name: str) -> SstId:
    """Epoch and counter in an SST's name. Raises CorruptionError for any other name."""
    match = _SST.fullmatch(name)
    if match is None:
        raise CorruptionError(f"{name}: not the name of an SST")
    return int(match[1]), int(match[2])


def _number(pattern: re.Pattern[str], name: str) -> int:
    match = pattern.fullmatch(name)
    if match is None:
        raise CorruptionError(f"{name}: not a name of the form {pattern.pattern!r}")
    return int(match[1])
