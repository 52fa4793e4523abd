"""Which volume may be opened at an address, and where one may be made.

A bucket that holds anything of a volume, an address where this host has seen one, a key without its objects: each is
refused by name, and nothing is changed.
"""

import contextlib
import logging
from dataclasses import dataclass

from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import KeyMissingError, NoVolumeError, RollbackError
from zerofs.keys import vault
from zerofs.keys.format import SIDECAR_NAME
from zerofs.keys.keyring import Keyring
from zerofs.lsm.format.names import FLOOR_NAME, MANIFEST_PREFIX, SST_PREFIX, WAL_PREFIX
from zerofs.lsm.witness import Places, Witness
from zerofs.objectstore.api import ObjectStore
from zerofs.world import World

log = logging.getLogger(__name__)

MEMORY_URL = "memory://"
"""The address of every volume that ends with its process: nothing to remember, nothing to cache on disk."""


@dataclass(slots=True, frozen=True, kw_only=True)
class OpenOptions:
    """How to open a volume. `mountpoint` is told to whoever takes the volume over later."""

    read_only: bool = False
    checkpoint: str | None = None
    """Name or id of the one to show; only for reading."""
    create: bool = True
    """Make a volume where nothing is."""
    accept_rollback: bool = False
    mountpoint: str = ""
    noatime: bool = False
    """Reads leave access times alone."""


async def unseal_or_create(
    store: ObjectStore, world: World, password: Secret, settings: Settings, options: OpenOptions
) -> Keyring:
    """The volume's keys. Where there is nothing at all a volume is made; anything in between is refused by name."""
    with contextlib.suppress(KeyMissingError):
        return await vault.unseal(store, world, password)
    if await _has_objects(store, (MANIFEST_PREFIX, WAL_PREFIX, SST_PREFIX)):
        raise KeyMissingError(
            f"{store.url} holds a volume's objects but not its {SIDECAR_NAME}. Without that object the data cannot be "
            f"opened by anybody: restore {SIDECAR_NAME} from a backup of the bucket, or from an older object version"
        )
    if not options.create:
        raise NoVolumeError(f"there is no volume at {store.url}")
    if options.read_only:
        raise NoVolumeError(f"there is no volume at {store.url}, and a read-only mount creates none")
    check_new_place(store.url, settings, options)
    log.info("creating a new volume at %s", store.url)
    return await vault.create(store, world, password)


def check_new_place(url: str, settings: Settings, options: OpenOptions) -> None:
    """Refuse to make a volume where nothing is but this host has seen one. Raises NoVolumeError."""
    if Places(settings.state_dir).knows(url) and not options.accept_rollback:
        raise NoVolumeError(
            f"{url} is empty, but this host has seen a volume there: is the disk mounted, is it the right bucket? To "
            "make a new volume there on purpose, start once with --accept-rollback"
        )


async def check_unborn(store: ObjectStore, volume_id: bytes, settings: Settings) -> None:
    """A key without any manifest is a volume whose creation was interrupted, or one that somebody emptied.

    Raises NoVolumeError for the latter.
    """
    if await _has_objects(store, (WAL_PREFIX, SST_PREFIX, FLOOR_NAME)):
        raise NoVolumeError(
            f"{store.url} has {SIDECAR_NAME} and other objects but no manifest: restore the objects below "
            f"{MANIFEST_PREFIX} from a backup; nothing was changed"
        )
    if Witness(settings.state_dir, volume_id).load() is not None:
        raise NoVolumeError(
            f"{store.url} has {SIDECAR_NAME} but no other object of a volume that this host has seen with data: "
            "restore the bucket from a backup; nothing was changed"
        )


def check_place(url: str, keyring: Keyring, settings: Settings, options: OpenOptions) -> None:
    """Refuse another volume than the one that this host has seen at the address. Raises RollbackError, ConfigError."""
    if url == MEMORY_URL:
        return
    places = Places(settings.state_dir)
    known, found = places.volume_at(url), keyring.volume_id.hex()
    if known and known != found and not options.accept_rollback:
        raise RollbackError(
            f"{url} holds the volume {found}, but this host has seen the volume {known} there: is it the right bucket, "
            "the right disk? If the volume was exchanged on purpose, start once with --accept-rollback"
        )


def remember_place(url: str, volume_id: bytes, settings: Settings, options: OpenOptions) -> None:
    """Only once the volume is open: a key alone may have been put there by mistake. A look changes nothing."""
    places = Places(settings.state_dir)
    if url != MEMORY_URL and not (places.volume_at(url) and options.read_only):
        places.remember(url, volume_id)


async def _has_objects(store: ObjectStore, prefixes: tuple[str, ...]) -> bool:
    for prefix in prefixes:
        if await store.list(prefix):
            return True
    return False
