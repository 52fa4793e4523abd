"""`zerofs debug`: any object of a volume, decoded. Reads single objects; takes nobody's place and fences nobody."""

import contextlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from zerofs.admin.decode import (
    Opened,
    Wanted,
    decode_clear,
    decode_key_object,
    decode_object,
    open_volume_objects,
)
from zerofs.cli import console
from zerofs.cli.reach import reach
from zerofs.config.password import read_password
from zerofs.config.settings import Settings
from zerofs.errors import ConfigError, CorruptionError, ObjectNotFoundError
from zerofs.keys.format import MAX_SIDECAR_SIZE, SIDECAR_NAME
from zerofs.lsm.format.wal import MAX_OBJECT_SIZE
from zerofs.telemetry.log import configure
from zerofs.world import World

_NAME = re.compile(
    r"(?:.*/)?(zerofs\.key|manifest/(?:floor|\d{20}\.manifest)|wal/\d{20}\.sst|compacted/[-\d]{23}\.sst)"
)


@dataclass(slots=True, frozen=True, kw_only=True)
class Question:
    """What to decode: object names, or files that are copies of objects and lie under their names."""

    objects: tuple[str, ...]
    clear: bool
    rows: bool
    values: bool


def debug(question: Question, config: Path | None, *, verbose: bool) -> None:
    """Print each object as JSON. Raises ConfigError, MissingObjectError, CorruptionError and what opening raises."""
    configure("debug" if verbose else "warning")
    named = [(argument, _object_name(argument)) for argument in question.objects]
    needs_store = any(argument == name for argument, name in named)
    needs_keys = not question.clear and any(name != SIDECAR_NAME for _, name in named)
    settings = reach(config).settings if needs_store or needs_keys else None
    trio.run(_show_all, question, named, settings, needs_keys)


async def _show_all(
    question: Question, named: Sequence[tuple[str, str]], settings: Settings | None, needs_keys: bool
) -> None:
    from zerofs.objectstore.open import open_store
    from zerofs.telemetry.metrics import Metrics
    from zerofs.volume import open_objects

    async with contextlib.AsyncExitStack() as stack:
        world = World()
        opened, store = None, None
        if settings is not None and needs_keys:
            password = read_password(settings.storage.password, console.ask_secret)
            storage = await stack.enter_async_context(open_objects(settings, password, world, accept_rollback=True))
            opened = await open_volume_objects(storage)
        elif settings is not None:
            opening = open_store(settings.storage.url, settings.aws, world, Metrics())
            store = await stack.enter_async_context(contextlib.aclosing(opening))
        for argument, name in named:
            limit = MAX_SIDECAR_SIZE if name == SIDECAR_NAME else MAX_OBJECT_SIZE
            if argument != name:
                body = _read_file(argument, limit)
            else:
                place = opened.store_of(name) if opened is not None else store
                assert place is not None, "it was opened for this"
                try:
                    body = await place.get(name, limit_bytes=limit)
                except ObjectNotFoundError as error:
                    raise ConfigError(f"there is no object {name} in {place.url}") from error
            _print(await _decoded(opened, name, body, question))


async def _decoded(opened: Opened | None, name: str, body: bytes, question: Question) -> dict[str, Any]:
    if name == SIDECAR_NAME:
        return decode_key_object(name, body)
    if opened is None:
        return decode_clear(name, body)
    return await decode_object(opened, name, body, Wanted(rows=question.rows, values=question.values))


def _object_name(argument: str) -> str:
    match = _NAME.fullmatch(argument)
    if match is None:
        raise ConfigError(
            f"{argument[:200]!r} is no object that can be decoded: name one (zerofs.key, manifest/…, wal/…, "
            "compacted/…), or a file whose path ends in such a name, which its seal is bound to"
        )
    return match[1]


def _read_file(path: str, limit: int) -> bytes:
    try:
        with open(path, "rb") as file:
            body = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(body) > limit:
        raise CorruptionError(f"{path}: more than {limit} bytes; such an object has at most that")
    return body


def _print(shown: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(shown, indent=2) + "\n")
