"""`zerofs checkpoint clone` and `zerofs clone detach`: a volume that begins as another one's checkpoint (0016)."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from zerofs.admin import checkpoints
from zerofs.cli import console
from zerofs.cli.elsewhere import destination
from zerofs.cli.holding import Pins
from zerofs.cli.reach import reach
from zerofs.config.password import read_password
from zerofs.config.settings import Settings
from zerofs.crypto.secret import Secret
from zerofs.errors import CheckpointError, VolumeInUseError, ZerofsError
from zerofs.telemetry.log import configure
from zerofs.world import World

if TYPE_CHECKING:
    from zerofs.lsm.engine import Engine
    from zerofs.lsm.format.foreign import Foreign

OTHER_HOST = "run this on that host, or unmount the volume there"
OTHER_HOST_OF_CLONE = "unmount it there; if that host is gone, mount the clone here once, which takes it over"

STRANGE_PIN = "it is not what this clone's own is called; left alone"


@dataclass(slots=True, frozen=True, kw_only=True)
class Order:
    """Which checkpoint becomes a volume, and where."""

    name: str
    dest: str
    accept_rollback: bool


def create(order: Order, config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Make a clone, and print what it is. Raises what `admin.cloning` raises, ConfigError, VolumeInUseError."""
    settings = reach(config).settings
    dest = destination(settings, order.dest, "clone", may_be_read=False)
    configure("debug" if verbose else "warning")
    password = read_password(settings.storage.password, console.ask_secret)
    with console.progress("making the clone"):
        done = trio.run(_create, order, settings, dest, password)
    if as_json:
        console.print_json(done)
        return
    console.say(f"Clone of checkpoint {done['checkpoint']} made in {done['destination']}, volume {done['volume_id']}")
    console.say("It opens with the same password. Mount it with a configuration whose [storage] url is that place")
    console.say(f"Until `zerofs clone detach` it reads {done['source']}, where checkpoint {done['pin']} must stay")


async def _create(order: Order, settings: Settings, dest_settings: Settings, password: Secret) -> dict[str, Any]:
    from zerofs import admission
    from zerofs.admin import cloning
    from zerofs.keys import vault
    from zerofs.objectstore.open import open_store
    from zerofs.telemetry.metrics import Metrics
    from zerofs.volume import new_storage, open_to_clone

    world = World()
    pins = Pins(settings, password, world)

    async def pin(name: str, of: str) -> Mapping[str, Any]:
        return (await pins.change(checkpoints.COPY, [name], of))[0]

    async def unpin(name: str) -> None:
        await _delete(pins, name)

    url = dest_settings.storage.url
    options = admission.OpenOptions(accept_rollback=order.accept_rollback)
    async with (
        open_to_clone(settings, password, world) as (source, entry),
        contextlib.aclosing(open_store(url, dest_settings.aws, world, Metrics())) as store,
    ):
        state = await cloning.read_state(source, order.name)
        await pins.check_writer(source, OTHER_HOST)
        admission.check_new_place(store.url, dest_settings, options)
        made = await vault.make(world, password)
        try:
            dest = new_storage(store, made.keyring, dest_settings, world)
            await cloning.prepare(store, dest)
            done = await cloning.make(state, entry, dest, made, cloning.Hands(pin=pin, unpin=unpin))
            admission.remember_place(store.url, dest.volume_id, dest_settings, options)
        finally:
            made.keyring.wipe()
    return done


def detach(config: Path | None, *, as_json: bool, verbose: bool) -> None:
    """Make a clone stand alone, and print what became of its pins. Raises CloneError, VolumeInUseError."""
    reached = reach(config)
    for writer in reached.writers:
        raise VolumeInUseError(
            f"a clone that is mounted cannot be detached: process {writer.pid} serves it at {writer.mountpoint}; "
            f"unmount it with `zerofs umount {writer.mountpoint}`, then detach"
        )
    configure("debug" if verbose else "warning")
    password = read_password(reached.settings.storage.password, console.ask_secret)
    own_id = trio.run(_free_to_detach, reached.settings, password)
    with console.measured() as progress:

        async def work(engine: "Engine") -> dict[str, Any]:
            table = engine.manifest.foreign
            await engine.detach(progress)
            left: list[dict[str, str]] = []
            gone: list[bytes] = []
            for source in table:
                why = await _release(reached.settings, password, source, own_id) if source.pin else ""
                if why:
                    left.append({"source": source.url, "pin": source.pin, "reason": why})
                else:
                    gone.append(source.volume_id)
            await engine.checkpoints.forget_pins(gone)
            await engine.maintenance.collect()  # older manifests have the keys
            return {"was_clone": bool(table), "sources": [source.url for source in table], "left": left}

        done = reached.here(work, read_only=False, verbose=verbose, password=password)
    if as_json:
        console.print_json(done)
        return
    if not done["was_clone"]:
        console.say("The volume is no clone: it needs no other volume")
        return
    console.say(f"The clone stands alone: it does not need {', '.join(done['sources'])} any more")
    for pin in done["left"]:
        console.say(f"The checkpoint {pin['pin']} in {pin['source']} could not be deleted: {pin['reason']}")
        if pin["reason"] == STRANGE_PIN:
            continue
        command = f"zerofs checkpoint delete --force {pin['pin']} -c CONFIGURATION_OF_THE_SOURCE"
        console.say(f"It holds space there: run `{command}`, or `zerofs clone detach` again")


async def _free_to_detach(settings: Settings, password: Secret) -> bytes:
    """The id of a clone that nobody seems to have open. Raises VolumeInUseError, and what opening raises."""
    from zerofs.volume import open_objects

    world = World()
    async with open_objects(settings, password, world) as storage:
        await Pins(settings, password, world).check_writer(storage, OTHER_HOST_OF_CLONE)
        return storage.volume_id


async def _release(settings: Settings, password: Secret, source: "Foreign", own_id: bytes) -> str:
    """Delete the pin in a source, with the password of the clone if it is not mounted here; why not, if not.

    Whoever made the clone wrote down where its source is and what the pin is called. So only a pin of this clone goes,
    in the volume that it was cloned from.
    """
    from zerofs.volume import open_objects

    if source.pin != checkpoints.pin_name(own_id):
        return STRANGE_PIN
    there = replace(settings, storage=replace(settings.storage, url=source.url))
    world = World()
    pins = Pins(there, password, world)
    try:
        found = await pins.served_volume()
        if found is None:
            async with open_objects(there, password, world) as storage:
                found = storage.volume_id.hex()
                if found == source.volume_id.hex():
                    await pins.check_writer(storage, OTHER_HOST)
        if found != source.volume_id.hex():
            return "another volume lies there now"
        await _delete(pins, source.pin)
    except ZerofsError as error:
        return str(error)
    return ""


async def _delete(pins: Pins, name: str) -> None:
    """Delete a checkpoint, if it is there."""
    try:
        await pins.change(checkpoints.RELEASE, [name])
    except ZerofsError as error:
        if error.exit_code != CheckpointError.exit_code:
            raise
