"""What writer and worker say to each other: pure codec, no pipe (decision 0008, point 5). `framing` cuts messages.

    writer ─▶ worker    {"zerofs": 1, "setup": {…}}, once and first; then {"zerofs": 1, "job": {…}} each time
    worker ─▶ writer    {"zerofs": 1, "counted": […], "result": {…}} or {…, "error": {"kind": NAME, "message": TEXT}}

Bytes are lower-case hexadecimal. An SST id is [epoch, counter], an SST [epoch, counter, object size, index length, row
count, first key, last key]. Both ends are the same program, so anything that is missing, unknown or out of range is an
error, and a new field is a new version.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn, TypeVar, final

from zerofs import errors
from zerofs.crypto.aead import KEY_SIZE
from zerofs.errors import ConfigError, ZerofsError
from zerofs.ids import EPOCH_TOKEN_SIZE, VOLUME_ID_SIZE, KeyId
from zerofs.lsm.compaction.framing import MessageError
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.names import MAX_COUNTER, MAX_EPOCH, SstId
from zerofs.lsm.format.rows import MAX_KEY_SIZE
from zerofs.lsm.format.sst import MAX_INDEX_SIZE, MAX_OBJECT_SIZE
from zerofs.objectstore.options import S3Options
from zerofs.transform.compression import Compression

VERSION = 1

_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_MAX_INT = 2**63 - 1

T = TypeVar("T")


@dataclass(slots=True, frozen=True, kw_only=True)
class Setup:
    """What a worker must know to reach the store and to open meta blocks. Holds secrets, which its repr leaves out."""

    url: str
    s3: S3Options
    volume_id: bytes
    subkeys: Mapping[KeyId, bytes] = field(repr=False)
    """Those of `Purpose.BLOCKS`, and no others."""
    current: KeyId
    compression: Compression


@dataclass(slots=True, frozen=True, kw_only=True)
class Counted:
    """What a counter of the worker rose by."""

    name: str
    labels: Mapping[str, str]
    amount: int


@dataclass(slots=True, frozen=True, kw_only=True)
class Answer:
    """How a job ended, and what it cost."""

    outcome: CompactionResult | ZerofsError
    counted: tuple[Counted, ...] = ()


# --- encoding --------------------------------------------------------------------------------------------------


def encode_setup(setup: Setup) -> bytes:
    """The first message. Secret: for the pipe alone."""
    return _dump(
        setup={
            "url": setup.url,
            "s3": asdict(setup.s3),
            "volume_id": setup.volume_id.hex(),
            "subkeys": [[key_id, key.hex()] for key_id, key in sorted(setup.subkeys.items())],
            "current": setup.current,
            "compression": str(setup.compression),
        }
    )


def encode_job(job: CompactionJob) -> bytes:
    """A job."""
    return _dump(
        job={
            "prefix": job.prefix.hex(),
            "runs": [_packed_run(run) for run in job.runs],
            "drop_deletes": job.drop_deletes,
            "tokens": [[epoch, token.hex()] for epoch, token in sorted(job.tokens.items())],
            "epoch": job.epoch,
            "token": job.token.hex(),
            "names": job.names,
            "target_size_bytes": job.target_size_bytes,
            "block_size_bytes": job.block_size_bytes,
        }
    )


def encode_answer(answer: Answer) -> bytes:
    """A result or an error. The error travels as the nearest class that `zerofs.errors` has for it."""
    counted = [[count.name, dict(count.labels), count.amount] for count in answer.counted]
    outcome = answer.outcome
    if isinstance(outcome, ZerofsError):
        kind = next(base.__name__ for base in type(outcome).__mro__ if base.__name__ in _ERRORS)
        return _dump(counted=counted, error={"kind": kind, "message": str(outcome)})
    return _dump(
        counted=counted,
        result={
            "run": None if outcome.run is None else _packed_run(outcome.run),
            "written": [_packed_sst(sst) for sst in outcome.written],
            "moved": outcome.moved,
            "dropped": [[*sst, size] for sst, size in sorted(outcome.dropped.items())],
        },
    )


_ERRORS: dict[str, type[ZerofsError]] = {
    name: error
    for name, error in vars(errors).items()
    if isinstance(error, type) and issubclass(error, ZerofsError) and error is not errors.FsError
}
"""All that take a message alone."""


def _packed_run(run: Run) -> dict[str, Any]:
    return {"ssts": [_packed_sst(sst) for sst in run.ssts], "has_range_deletes": run.has_range_deletes}


def _packed_sst(sst: SstInfo) -> list[Any]:
    numbers = [*sst.sst, sst.size_bytes, sst.index_length, sst.row_count]
    return [*numbers, sst.first_key.hex(), sst.last_key.hex()]


def _dump(**content: Any) -> bytes:
    return json.dumps({"zerofs": VERSION, **content}, allow_nan=False, separators=(",", ":")).encode()


# --- decoding --------------------------------------------------------------------------------------------------


def decode_setup(payload: bytes) -> Setup:
    """The first message. Raises MessageError, which never repeats what it holds."""
    setup = _sole(payload, "setup")
    decoded = Setup(
        url=setup.text("url"),
        s3=_s3_options(setup.into("s3")),
        volume_id=setup.data("volume_id", VOLUME_ID_SIZE),
        subkeys={KeyId(key_id): key for key_id, key in _pairs(setup, "subkeys", 2**32 - 1, KEY_SIZE).items()},
        current=KeyId(setup.number("current")),
        compression=_checked(lambda: Compression.parse(setup.text("compression"))),
    )
    setup.end()
    if decoded.current not in decoded.subkeys:
        raise MessageError("the setup lacks the current key")
    return decoded


def decode_job(payload: bytes) -> CompactionJob:
    """A job. Raises MessageError."""
    job = _sole(payload, "job")
    decoded = CompactionJob(
        prefix=job.data("prefix"),
        runs=tuple(map(_run, job.items("runs"))),
        drop_deletes=job.flag("drop_deletes"),
        tokens=_pairs(job, "tokens", MAX_EPOCH, EPOCH_TOKEN_SIZE),
        epoch=job.number("epoch", MAX_EPOCH),
        token=job.data("token", EPOCH_TOKEN_SIZE),
        names=tuple(map(_sst_id, job.items("names"))),
        target_size_bytes=job.number("target_size_bytes"),
        block_size_bytes=job.number("block_size_bytes"),
    )
    job.end()
    if not decoded.target_size_bytes or not decoded.block_size_bytes:
        raise MessageError("a job for SSTs or blocks of no size")
    return decoded


def decode_answer(payload: bytes) -> Answer:
    """What became of a job. Raises MessageError."""
    answer = _load(payload)
    counted = tuple(_counted(item) for item in answer.items("counted"))
    if answer.has("error"):
        error = answer.into("error")
        kind, message = error.text("kind"), error.text("message")
        error.end()
        answer.end()
        if kind not in _ERRORS:
            raise MessageError("an error of an unknown kind")
        return Answer(outcome=_ERRORS[kind](message), counted=counted)
    result = answer.into("result")
    answer.end()
    outcome = CompactionResult(
        run=None if (run := result.take("run")) is None else _run(run),
        written=tuple(map(_sst, result.items("written"))),
        moved=result.number("moved"),
        dropped=dict(map(_dropped, result.items("dropped"))),
    )
    result.end()
    return Answer(outcome=outcome, counted=counted)


@final
class _Fields:
    """A JSON object whose fields are taken one by one; at the end none may be left."""

    __slots__ = ("_left",)

    def __init__(self, value: object) -> None:
        self._left: dict[str, object] = dict(value) if isinstance(value, dict) else _refuse("an object is missing")

    def has(self, name: str) -> bool:
        """Whether the field is there."""
        return name in self._left

    def take(self, name: str) -> object:
        """A field of any kind."""
        return self._left.pop(name) if name in self._left else _refuse(f"the field {name} is missing")

    def into(self, name: str) -> "_Fields":
        """An object."""
        return _Fields(self.take(name))

    def items(self, name: str) -> list[object]:
        """A list."""
        return _items(self.take(name))

    def text(self, name: str) -> str:
        """A string."""
        return _text(self.take(name))

    def text_or_none(self, name: str) -> str | None:
        """A string or null."""
        value = self.take(name)
        return None if value is None else _text(value)

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.take(name)
        return value if isinstance(value, bool) else _refuse(f"the field {name} is neither true nor false")

    def number(self, name: str, limit: int = _MAX_INT) -> int:
        """An integer from 0 to `limit`."""
        return _number(self.take(name), limit)

    def seconds(self, name: str) -> float:
        """A duration."""
        value = self.take(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            _refuse(f"the field {name} is no duration")
        return float(value)

    def data(self, name: str, size: int | None = None) -> bytes:
        """Bytes: exactly `size` of them, or any that a key could have."""
        return _data(self.take(name), size)

    def end(self) -> None:
        """Nothing may be left."""
        if self._left:
            _refuse("there are unknown fields")


def _load(payload: bytes) -> _Fields:
    try:
        content = _Fields(json.loads(payload, parse_constant=_refuse))
    except (ValueError, RecursionError):  # its text and attributes repeat the payload, which may be a setup
        raise MessageError("a message is not JSON") from None
    if content.number("zerofs") != VERSION:
        _refuse("it is of another version")
    return content


def _sole(payload: bytes, name: str) -> _Fields:
    """What a message holds that holds nothing else."""
    message = _load(payload)
    content = message.into(name)
    message.end()
    return content


def _s3_options(options: _Fields) -> S3Options:
    decoded = _checked(
        lambda: S3Options(
            endpoint=options.text_or_none("endpoint"),
            access_key_id=options.text_or_none("access_key_id"),
            secret_access_key=options.text_or_none("secret_access_key"),
            default_region=options.text_or_none("default_region"),
            allow_http=options.flag("allow_http"),
            connect_timeout_s=options.seconds("connect_timeout_s"),
            read_timeout_s=options.seconds("read_timeout_s"),
        )
    )
    options.end()
    return decoded


def _checked(make: Callable[[], T]) -> T:
    try:
        return make()
    except ConfigError:
        raise MessageError("a setting in the setup is refused") from None


def _pairs(fields: _Fields, name: str, limit: int, size: int) -> dict[int, bytes]:
    """A list of [number, bytes], no number twice."""
    items = [_items(item, 2) for item in fields.items(name)]
    pairs = {_number(number, limit): _data(data, size) for number, data in items}
    return pairs if len(pairs) == len(items) else _refuse(f"a number stands twice among the {name}")


def _run(value: object) -> Run:
    fields = _Fields(value)
    run = Run(ssts=tuple(map(_sst, fields.items("ssts"))), has_range_deletes=fields.flag("has_range_deletes"))
    fields.end()
    return run if run.ssts else _refuse("a run has no SSTs")


def _sst(value: object) -> SstInfo:
    epoch, counter, size_bytes, index_length, row_count, first_key, last_key = _items(value, 7)
    return SstInfo(
        sst=_sst_id([epoch, counter]),
        size_bytes=_number(size_bytes, MAX_OBJECT_SIZE),
        index_length=_number(index_length, MAX_INDEX_SIZE),
        row_count=_number(row_count),
        first_key=_data(first_key),
        last_key=_data(last_key),
    )


def _sst_id(value: object) -> SstId:
    epoch, counter = _items(value, 2)
    return _number(epoch, MAX_EPOCH), _number(counter, MAX_COUNTER)


def _dropped(value: object) -> tuple[SstId, int]:
    epoch, counter, size = _items(value, 3)
    return _sst_id([epoch, counter]), _number(size)


def _counted(value: object) -> Counted:
    name, labels, amount = _items(value, 3)
    if not isinstance(labels, dict):
        _refuse("labels are no object")
    return Counted(
        name=_text(name), labels={label: _text(text) for label, text in labels.items()}, amount=_number(amount)
    )


def _items(value: object, count: int | None = None) -> list[object]:
    if not isinstance(value, list) or (count is not None and len(value) != count):
        _refuse("a list is missing, or of another length")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else _refuse("a string is missing")


def _number(value: object, limit: int = _MAX_INT) -> int:
    if type(value) is not int or not 0 <= value <= limit:  # not isinstance: true is no number
        _refuse("a number is missing or out of range")
    return value


def _data(value: object, size: int | None = None) -> bytes:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        _refuse("bytes are missing")
    data = bytes.fromhex(value)
    if len(data) != size and (size is not None or len(data) > MAX_KEY_SIZE):
        _refuse("bytes are of another length")
    return data


def _refuse(problem: str) -> NoReturn:
    """Says what is wrong, and nothing of what was there."""
    raise MessageError(f"a message of the compaction worker is malformed: {problem}")
