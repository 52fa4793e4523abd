"""What writer and worker say to each other: pure codec, no pipe (decision 0008, point 5). `framing` cuts messages.

    writer ─▶ worker    {"zerofs": 2, "setup": {…}}, once and first; then {"zerofs": 2, "job": {…}} each time
    worker ─▶ writer    {"zerofs": 2, "counted": […], "result": {…}} or {…, "error": {"kind": NAME, "message": TEXT}}

Bytes are lower-case hexadecimal. An SST id is [epoch, counter], an SST [epoch, counter, object size, index length, row
count, first key, last key], a source of a clone [URL, volume id, last epoch, keys of its blocks]. Both ends are the
same program, so anything that is missing, unknown or out of range is an error, and a new field is a new version.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from zerofs import errors
from zerofs.crypto.aead import KEY_SIZE
from zerofs.errors import ConfigError, ZerofsError
from zerofs.ids import EPOCH_TOKEN_SIZE, VOLUME_ID_SIZE, KeyId
from zerofs.lsm.compaction.fields import Fields, as_data, as_items, as_number, as_text, refuse
from zerofs.lsm.compaction.framing import MessageError
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult
from zerofs.lsm.format.foreign import MAX_KEY_ID, Foreign
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.lsm.format.names import MAX_COUNTER, MAX_EPOCH, SstId
from zerofs.lsm.format.sst import MAX_INDEX_SIZE, MAX_OBJECT_SIZE
from zerofs.objectstore.options import S3Options
from zerofs.transform.compression import Compression

VERSION = 2
"""2: a job has `foreign` and `rewrite_up_to`."""

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


def encode_hello() -> bytes:
    """The first message of a worker: nobody else can look into it any more, so it may be told secrets."""
    return _dump(hello=True)


def encode_setup(setup: Setup) -> bytes:
    """The first message. Secret: for the pipe alone."""
    return _dump(
        setup={
            "url": setup.url,
            "s3": asdict(setup.s3),
            "volume_id": setup.volume_id.hex(),
            "subkeys": _packed_keys(setup.subkeys),
            "current": setup.current,
            "compression": str(setup.compression),
        }
    )


def encode_job(job: CompactionJob) -> bytes:
    """A job. Secret, as tokens are, and of a clone the keys of its sources' blocks: for the pipe alone."""
    return _dump(
        job={
            "prefix": job.prefix.hex(),
            "runs": [_packed_run(run) for run in job.runs],
            "drop_deletes": job.drop_deletes,
            "tokens": _packed_keys(job.tokens),
            "epoch": job.epoch,
            "token": job.token.hex(),
            "names": job.names,
            "target_size_bytes": job.target_size_bytes,
            "block_size_bytes": job.block_size_bytes,
            "foreign": [[it.url, it.volume_id.hex(), it.last_epoch, _packed_keys(it.block_keys)] for it in job.foreign],
            "rewrite_up_to": job.rewrite_up_to,
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


def _packed_keys(keys: Mapping[Any, bytes]) -> list[list[Any]]:
    return [[number, key.hex()] for number, key in sorted(keys.items())]


def _packed_run(run: Run) -> dict[str, Any]:
    return {"ssts": [_packed_sst(sst) for sst in run.ssts], "has_range_deletes": run.has_range_deletes}


def _packed_sst(sst: SstInfo) -> list[Any]:
    numbers = [*sst.sst, sst.size_bytes, sst.index_length, sst.row_count]
    return [*numbers, sst.first_key.hex(), sst.last_key.hex()]


def _dump(**content: Any) -> bytes:
    return json.dumps({"zerofs": VERSION, **content}, allow_nan=False, separators=(",", ":")).encode()


# --- decoding --------------------------------------------------------------------------------------------------


def check_hello(payload: bytes) -> None:
    """Raise MessageError unless it is what a worker of this version says first."""
    hello = _load(payload)
    hello.flag("hello")
    hello.end()


def decode_setup(payload: bytes) -> Setup:
    """The first message. Raises MessageError, which never repeats what it holds."""
    setup = _sole(payload, "setup")
    decoded = Setup(
        url=setup.text("url"),
        s3=_s3_options(setup.into("s3")),
        volume_id=setup.data("volume_id", VOLUME_ID_SIZE),
        subkeys=_subkeys(setup.take("subkeys"), "subkeys"),
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
        tokens=_pairs(job.take("tokens"), "tokens", MAX_EPOCH, EPOCH_TOKEN_SIZE),
        epoch=job.number("epoch", MAX_EPOCH),
        token=job.data("token", EPOCH_TOKEN_SIZE),
        names=tuple(map(_sst_id, job.items("names"))),
        target_size_bytes=job.number("target_size_bytes"),
        block_size_bytes=job.number("block_size_bytes"),
        foreign=tuple(map(_foreign, job.items("foreign"))),
        rewrite_up_to=job.number("rewrite_up_to", MAX_EPOCH),
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


def _load(payload: bytes) -> Fields:
    try:
        content = Fields(json.loads(payload, parse_constant=refuse))
    except (ValueError, RecursionError):  # its text and attributes repeat the payload, which may be a setup
        raise MessageError("a message is not JSON") from None
    if content.number("zerofs") != VERSION:
        refuse("it is of another version")
    return content


def _sole(payload: bytes, name: str) -> Fields:
    """What a message holds that holds nothing else."""
    message = _load(payload)
    content = message.into(name)
    message.end()
    return content


def _s3_options(options: Fields) -> S3Options:
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


def _pairs(value: object, name: str, limit: int, size: int) -> dict[int, bytes]:
    """A list of [number, bytes], no number twice."""
    items = [as_items(item, 2) for item in as_items(value)]
    pairs = {as_number(number, limit): as_data(data, size) for number, data in items}
    return pairs if len(pairs) == len(items) else refuse(f"a number stands twice among the {name}")


def _foreign(value: object) -> Foreign:
    url, volume_id, last_epoch, keys = as_items(value, 4)
    return Foreign(
        url=as_text(url),
        volume_id=as_data(volume_id, VOLUME_ID_SIZE),
        last_epoch=as_number(last_epoch, MAX_EPOCH),
        block_keys=_subkeys(keys, "keys"),
    )


def _subkeys(value: object, name: str) -> dict[KeyId, bytes]:
    return {KeyId(key_id): key for key_id, key in _pairs(value, name, MAX_KEY_ID, KEY_SIZE).items()}


def _run(value: object) -> Run:
    fields = Fields(value)
    run = Run(ssts=tuple(map(_sst, fields.items("ssts"))), has_range_deletes=fields.flag("has_range_deletes"))
    fields.end()
    return run if run.ssts else refuse("a run has no SSTs")


def _sst(value: object) -> SstInfo:
    epoch, counter, size_bytes, index_length, row_count, first_key, last_key = as_items(value, 7)
    return SstInfo(
        sst=_sst_id([epoch, counter]),
        size_bytes=as_number(size_bytes, MAX_OBJECT_SIZE),
        index_length=as_number(index_length, MAX_INDEX_SIZE),
        row_count=as_number(row_count),
        first_key=as_data(first_key),
        last_key=as_data(last_key),
    )


def _sst_id(value: object) -> SstId:
    epoch, counter = as_items(value, 2)
    return as_number(epoch, MAX_EPOCH), as_number(counter, MAX_COUNTER)


def _dropped(value: object) -> tuple[SstId, int]:
    epoch, counter, size = as_items(value, 3)
    return _sst_id([epoch, counter]), as_number(size)


def _counted(value: object) -> Counted:
    name, labels, amount = as_items(value, 3)
    if not isinstance(labels, dict):
        refuse("labels are no object")
    return Counted(
        name=as_text(name), labels={label: as_text(text) for label, text in labels.items()}, amount=as_number(amount)
    )
