"""Compression settings, codec bytes, and bounded decompression.

    codec  bytes that follow
    0      the data as they are
    1      one zstd frame; its header states the content size
    2      size, u32 little-endian; one lz4 block

Data that do not shrink are kept as they are. Decompression is bounded before memory is allocated: the announced size
must be present and at most the caller's limit, and must come out exactly. Trailing bytes are refused.

Source: RFC 8878 (zstd); the lz4 block format.
"""

import enum
import re
import threading  # noqa: TID251 (contexts are one per thread; a ContextVar would hand the caller's to trio's workers)
from dataclasses import dataclass

import lz4.block
import zstandard

from zerofs.crypto.aead import BytesLike
from zerofs.errors import ConfigError, CorruptionError
from zerofs.units import KIB

MAX_ZSTD_LEVEL = 22

_LZ4_SIZE_BYTES = 4

SAMPLED_FROM = 16 * KIB
"""Smaller data are compressed without asking: the sample would cost as much."""

_SAMPLE_PIECES = 8
_SAMPLE_PIECE = 512


class Codec(enum.IntEnum):
    """How the bytes of a frame are compressed: its first sealed byte."""

    NONE = 0
    ZSTD = 1
    LZ4 = 2


@dataclass(slots=True, frozen=True, kw_only=True)
class Compression:
    """The setting for new frames. It may change at any start: each frame tells its own codec."""

    codec: Codec
    level: int = 0

    @classmethod
    def parse(cls, text: str) -> "Compression":
        """From `zstd-1` … `zstd-22` or `lz4`. Raises ConfigError that names the forms."""
        if text == "lz4":
            return cls(codec=Codec.LZ4)
        match = re.fullmatch(r"zstd-([1-9][0-9]?)", text, re.ASCII)
        if match and int(match[1]) <= MAX_ZSTD_LEVEL:
            return cls(codec=Codec.ZSTD, level=int(match[1]))
        raise ConfigError(f"unknown compression {text!r}: use 'zstd-1' to 'zstd-{MAX_ZSTD_LEVEL}', or 'lz4'")

    def __str__(self) -> str:
        return "lz4" if self.codec is Codec.LZ4 else f"zstd-{self.level}"


DEFAULT_COMPRESSION = Compression(codec=Codec.ZSTD, level=3)


class _Contexts(threading.local):
    """The zstd contexts of one thread. Two threads in one context bring the interpreter down."""

    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}
        self.decompressor = zstandard.ZstdDecompressor()

    def compressor(self, level: int) -> zstandard.ZstdCompressor:
        """The compressor of a level, made at first use."""
        found = self.compressors.get(level)
        if found is None:
            found = self.compressors[level] = zstandard.ZstdCompressor(level=level)
        return found


_contexts = _Contexts()


def compress(data: BytesLike, compression: Compression) -> tuple[int, BytesLike]:
    """The codec byte and the compressed bytes; (0, `data` itself) when they would not be fewer.

    Nor when a sample says so: zstd needs as long to find out that 32 KiB of random bytes do not shrink as the cipher
    needs to seal them twice (decision 0015). lz4 gives up by itself in the time that the sample takes.
    """
    if compression.codec is Codec.ZSTD:
        if len(data) >= SAMPLED_FROM and not _sample_shrinks(data):
            return Codec.NONE.value, data
        packed = _contexts.compressor(compression.level).compress(data)
    else:
        packed = lz4.block.compress(data)
    if len(packed) < len(data):
        return compression.codec.value, packed
    return Codec.NONE.value, data


def _sample_shrinks(data: BytesLike) -> bool:
    view = memoryview(data)
    step = len(view) // _SAMPLE_PIECES
    sample = b"".join([view[start : start + _SAMPLE_PIECE] for start in range(0, step * _SAMPLE_PIECES, step)])
    return len(_contexts.compressor(1).compress(sample)) < len(sample) * 31 // 32


def decompress(codec: int, data: bytes | memoryview, limit: int) -> bytes | memoryview:
    """The bytes that were compressed; `data` itself where they were not.

    Raises:
        CorruptionError: unknown codec; size missing, above `limit`, or untrue; bytes malformed or left over.
    """
    if codec == Codec.ZSTD:
        return _unpack_zstd(data, limit)
    if codec == Codec.LZ4:
        return _unpack_lz4(data, limit)
    if codec == Codec.NONE:
        _check_size(len(data), limit)
        return data
    raise CorruptionError(f"unknown codec {codec}: written by a newer zerofs?")


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise CorruptionError(f"compressed bytes announce {size} bytes; at most {limit} expected")


def _unpack_zstd(data: BytesLike, limit: int) -> bytes:
    try:
        size = zstandard.frame_content_size(data)
        # 0 is also what a skippable frame reports; nothing that shrank was ever empty.
        if size <= 0:
            raise CorruptionError("zstd frame without a content size")
        _check_size(size, limit)
        text = _contexts.decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise CorruptionError(f"zstd frame does not decompress: {exc}") from exc
    if len(text) != size:
        raise CorruptionError(f"zstd frame gave {len(text)} bytes; {size} announced")
    return text


def _unpack_lz4(data: BytesLike, limit: int) -> bytes:
    if len(data) <= _LZ4_SIZE_BYTES:
        raise CorruptionError("lz4 block cut short")
    size = int.from_bytes(data[:_LZ4_SIZE_BYTES], "little")
    _check_size(size, limit)
    try:
        # The library compares what it wrote with the announced size.
        text: bytes = lz4.block.decompress(data)
    except (lz4.block.LZ4BlockError, ValueError) as exc:
        raise CorruptionError(f"lz4 block does not decompress: {exc}") from exc
    return text
