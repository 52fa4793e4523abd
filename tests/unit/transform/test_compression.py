import contextlib
import random
import struct
import threading
import tracemalloc

import lz4.block
import pytest
import trio
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from zerofs.errors import ConfigError, CorruptionError
from zerofs.transform.compression import (
    DEFAULT_COMPRESSION,
    SAMPLED_FROM,
    Codec,
    Compression,
    _contexts,
    compress,
    decompress,
)

ZSTD = Compression(codec=Codec.ZSTD, level=3)
LZ4 = Compression(codec=Codec.LZ4)
TEXT = b"all work and no play " * 200
RANDOM = random.Random(1).randbytes(4096)
GIB = 1 << 30


@pytest.mark.parametrize("level", range(1, 23))
def test_parse_zstd(level):
    setting = Compression.parse(f"zstd-{level}")
    assert setting == Compression(codec=Codec.ZSTD, level=level)
    assert str(setting) == f"zstd-{level}"


def test_parse_lz4():
    assert Compression.parse("lz4") == LZ4
    assert str(LZ4) == "lz4"


def test_default():
    assert Compression.parse("zstd-3") == DEFAULT_COMPRESSION


@pytest.mark.parametrize(
    "text",
    [
        "",
        "zstd",
        "zstd-",
        "zstd-0",
        "zstd-03",
        "zstd-23",
        "zstd-100",
        "zstd--1",
        "ZSTD-3",
        "lz4-1",
        " lz4",
        "lz4\n",
        "zstd-٣",
        "none",
    ],
)
def test_parse_refuses_and_names_the_forms(text):
    with pytest.raises(ConfigError, match="'zstd-1' to 'zstd-22', or 'lz4'"):
        Compression.parse(text)


@given(
    st.binary(max_size=2000), st.integers(1, 4), st.sampled_from([LZ4, ZSTD, Compression(codec=Codec.ZSTD, level=1)])
)
def test_round_trip(data, times, setting):
    data *= times
    codec, packed = compress(data, setting)
    assert len(packed) <= len(data)
    assert decompress(codec, packed, len(data)) == data


@pytest.mark.parametrize("setting", [ZSTD, LZ4], ids=str)
@pytest.mark.parametrize("convert", [bytes, bytearray, memoryview])
def test_any_bytes_like(setting, convert):
    codec, packed = compress(convert(TEXT), setting)
    assert codec == setting.codec
    opened = decompress(codec, convert(packed), len(TEXT))
    assert type(opened) is bytes
    assert opened == TEXT


@pytest.mark.parametrize("setting", [ZSTD, LZ4], ids=str)
@pytest.mark.parametrize("data", [b"", b"a", RANDOM])
def test_what_does_not_shrink_stays_as_it_is(setting, data):
    codec, packed = compress(data, setting)
    assert codec == Codec.NONE
    assert packed is data
    assert decompress(codec, packed, len(data)) == data


@pytest.mark.parametrize("size", [SAMPLED_FROM - 1, SAMPLED_FROM, 32768, 100_001])
def test_a_sample_finds_out_what_is_worth_compressing(size):
    noise = random.Random(size).randbytes(size)
    hexadecimal = noise.hex().encode()[:size]
    half = noise[: size // 2] + bytes(size - size // 2)
    assert compress(noise, DEFAULT_COMPRESSION) == (Codec.NONE, noise)
    for data, share in ((hexadecimal, 0.6), (half, 0.6), (bytes(size), 0.01)):
        codec, packed = compress(data, DEFAULT_COMPRESSION)
        assert codec == Codec.ZSTD
        assert len(packed) < share * size
        assert decompress(codec, packed, size) == data


@pytest.mark.parametrize("level", [1, 3, 19, 22])
def test_all_zstd_levels_share_one_codec(level):
    codec, packed = compress(TEXT, Compression(codec=Codec.ZSTD, level=level))
    assert codec == Codec.ZSTD
    assert decompress(codec, packed, len(TEXT)) == TEXT


@pytest.mark.parametrize("codec", [3, 4, 127, 255])
def test_unknown_codec(codec):
    with pytest.raises(CorruptionError, match=f"unknown codec {codec}"):
        decompress(codec, TEXT, GIB)


@pytest.mark.parametrize(
    ("codec", "packed"),
    [(0, TEXT), (1, zstandard.compress(TEXT)), (2, lz4.block.compress(TEXT))],
)
def test_limit(codec, packed):
    assert decompress(codec, packed, len(TEXT)) == TEXT
    with pytest.raises(CorruptionError, match=f"announce {len(TEXT)} bytes; at most {len(TEXT) - 1}"):
        decompress(codec, packed, len(TEXT) - 1)


def test_zstd_without_a_content_size():
    packed = zstandard.ZstdCompressor(write_content_size=False).compress(TEXT)
    with pytest.raises(CorruptionError, match="without a content size"):
        decompress(Codec.ZSTD, packed, GIB)


def test_zstd_skippable_frame():
    skippable = struct.pack("<II", 0x184D2A50, 4) + b"skip"
    for packed in (skippable, skippable + zstandard.compress(TEXT)):
        with pytest.raises(CorruptionError):
            decompress(Codec.ZSTD, packed, GIB)


def zstd_with_size(size):
    """A frame that announces `size` bytes in eight bytes, and holds what TEXT holds."""
    packed = zstandard.compress(TEXT)
    parameters = zstandard.get_frame_parameters(packed)
    assert parameters.content_size == len(TEXT)
    assert packed[4] == 0b0110_0000  # single segment, size in two bytes
    return packed[:4] + bytes((0b1110_0000,)) + struct.pack("<Q", size) + packed[7:]


def test_zstd_with_an_untrue_size():
    assert decompress(Codec.ZSTD, zstd_with_size(len(TEXT)), GIB) == TEXT
    for size in (1, len(TEXT) - 1, len(TEXT) + 1, len(TEXT) + 1000):
        with pytest.raises(CorruptionError):
            decompress(Codec.ZSTD, zstd_with_size(size), GIB)


@pytest.mark.parametrize(
    ("codec", "packed"),
    [
        (Codec.ZSTD, zstd_with_size(GIB)),
        (Codec.ZSTD, zstd_with_size((1 << 64) - 3)),
        (Codec.LZ4, struct.pack("<I", GIB) + lz4.block.compress(TEXT)[4:]),
        (Codec.LZ4, b"\xff\xff\xff\xff" + lz4.block.compress(TEXT)[4:]),
    ],
)
def test_a_bomb_is_refused_before_memory_is_allocated(codec, packed):
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="at most 32768 expected"):
            decompress(codec, packed, 32768)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_lz4_with_an_untrue_size():
    packed = lz4.block.compress(TEXT)
    for size in (0, 1, len(TEXT) - 1, len(TEXT) + 1, len(TEXT) + 1000):
        with pytest.raises(CorruptionError):
            decompress(Codec.LZ4, struct.pack("<I", size) + packed[4:], GIB)


@pytest.mark.parametrize(
    ("codec", "packed"), [(Codec.ZSTD, zstandard.compress(TEXT)), (Codec.LZ4, lz4.block.compress(TEXT))]
)
def test_cuts_and_trailing_bytes(codec, packed):
    for size in range(len(packed)):
        with pytest.raises(CorruptionError):
            decompress(codec, packed[:size], GIB)
    for tail in (b"\0", b"x", packed):
        with pytest.raises(CorruptionError):
            decompress(codec, packed + tail, GIB)


@given(st.sampled_from([Codec.ZSTD, Codec.LZ4]), st.binary(max_size=200))
def test_garbage_gives_corruption_or_bytes_within_the_limit(codec, data):
    with contextlib.suppress(CorruptionError):
        assert len(decompress(codec, data, 1000)) <= 1000


@given(st.sampled_from([ZSTD, LZ4]), st.data())
def test_altered_bytes_give_corruption_or_bytes_within_the_limit(setting, data):
    codec, packed = compress(TEXT, setting)
    altered = bytearray(packed)
    altered[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(CorruptionError):
        assert len(decompress(codec, altered, len(TEXT))) <= len(TEXT)


def test_threads_have_contexts_of_their_own():
    contexts = []

    def work():
        contexts.append((_contexts.compressor(3), _contexts.decompressor, _contexts.compressor(3)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work()
    assert all(first is again for first, _, again in contexts)
    assert len({id(context) for pair in contexts for context in pair[:2]}) == 6


async def test_trio_workers_do_not_inherit_the_callers_contexts():
    """They do inherit its context variables: a compressor kept in one would be used by two threads at once."""
    compress(TEXT, ZSTD)
    workers_own = await trio.to_thread.run_sync(_contexts.compressor, 3)
    assert workers_own is not _contexts.compressor(3)


def test_threads_at_once():
    text = TEXT * 50
    results = []

    def work():
        for level in (1, 3, 5):
            codec, packed = compress(text, Compression(codec=Codec.ZSTD, level=level))
            results.append(decompress(codec, packed, len(text)) == text)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 24
