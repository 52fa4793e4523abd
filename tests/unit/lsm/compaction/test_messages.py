"""What writer and worker say to each other: round trips, and whatever else may come."""

import json
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerofs import errors
from zerofs.ids import KeyId
from zerofs.lsm.compaction import framing
from zerofs.lsm.compaction.framing import MESSAGE_LIMIT_BYTES, MessageError, Unframer, frame
from zerofs.lsm.compaction.job import CompactionJob, CompactionResult
from zerofs.lsm.compaction.messages import (
    Answer,
    Counted,
    Setup,
    decode_answer,
    decode_job,
    decode_setup,
    encode_answer,
    encode_job,
    encode_setup,
)
from zerofs.lsm.format.foreign import Foreign
from zerofs.lsm.format.manifest import Run, SstInfo
from zerofs.objectstore.options import S3Options
from zerofs.transform.compression import Compression

SETUP = Setup(
    url="s3://bucket/prefix",
    s3=S3Options(
        endpoint="https://store.example",
        access_key_id="an-access-key",
        secret_access_key="a-secret-key",
        default_region="here",
        connect_timeout_s=1.5,
    ),
    volume_id=b"v" * 16,
    subkeys={KeyId(1): b"\x11" * 32, KeyId(7): b"\x77" * 32},
    current=KeyId(7),
    compression=Compression.parse("zstd-3"),
)
SST = SstInfo(sst=(1, 2), size_bytes=3, index_length=4, row_count=5, first_key=b"a\0", last_key=b"z\xff")
RUN = Run(ssts=(SST, replace(SST, sst=(1, 3))), has_range_deletes=True)
JOB = CompactionJob(
    prefix=b"meta",
    runs=(RUN, replace(RUN, has_range_deletes=False)),
    drop_deletes=False,
    tokens={1: b"1" * 16, 2: b"2" * 16},
    epoch=2,
    token=b"2" * 16,
    names=((2, 5), (2, 6)),
    target_size_bytes=1000,
    block_size_bytes=100,
    foreign=(
        Foreign(url="s3://bucket/source", volume_id=b"s" * 16, last_epoch=1, block_keys={KeyId(3): b"\x33" * 32}),
    ),
    rewrite_up_to=1,
)
RESULT = CompactionResult(run=RUN, written=(SST,), moved=1, dropped={(1, 9): 46, (2, 1): 10**12})
COUNTED = (
    Counted(name="store_requests_total", labels={"kind": "get"}, amount=3),
    Counted(name="pauses", labels={}, amount=1),
)
ANSWER = Answer(outcome=RESULT, counted=COUNTED)

KEYS = st.binary(max_size=30)
COUNTS = st.integers(0, 2**40)
IDS = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 10**12 - 1))
SSTS = st.builds(
    SstInfo,
    sst=IDS,
    size_bytes=st.integers(0, 2**30),
    index_length=st.integers(0, 2**20),
    row_count=COUNTS,
    first_key=KEYS,
    last_key=KEYS,
)
RUNS = st.builds(Run, ssts=st.lists(SSTS, min_size=1, max_size=3).map(tuple), has_range_deletes=st.booleans())
TOKENS = st.binary(min_size=16, max_size=16)
JOBS = st.builds(
    CompactionJob,
    prefix=KEYS,
    runs=st.lists(RUNS, max_size=3).map(tuple),
    drop_deletes=st.booleans(),
    tokens=st.dictionaries(st.integers(0, 2**32 - 1), TOKENS, max_size=3),
    epoch=st.integers(0, 2**32 - 1),
    token=TOKENS,
    names=st.lists(IDS, max_size=4).map(tuple),
    target_size_bytes=st.integers(1, 2**40),
    block_size_bytes=st.integers(1, 2**40),
)
RESULTS = st.builds(
    CompactionResult,
    run=st.none() | RUNS,
    written=st.lists(SSTS, max_size=3).map(tuple),
    moved=COUNTS,
    dropped=st.dictionaries(IDS, COUNTS, max_size=3),
)

MESSAGES = [
    (encode_setup(SETUP), decode_setup),
    (encode_job(JOB), decode_job),
    (encode_answer(ANSWER), decode_answer),
    (encode_answer(Answer(outcome=errors.CorruptionError("damaged"))), decode_answer),
]


@given(JOBS)
def test_jobs_round_trip(job):
    assert decode_job(encode_job(job)) == job


@given(RESULTS)
def test_results_round_trip(result):
    assert decode_answer(encode_answer(Answer(outcome=result))) == Answer(outcome=result)


def test_setup_and_counters_round_trip():
    assert decode_setup(encode_setup(SETUP)) == SETUP
    plain = replace(SETUP, url="file:///there", s3=S3Options(), compression=Compression.parse("lz4"))
    assert decode_setup(encode_setup(plain)) == plain
    assert decode_answer(encode_answer(ANSWER)) == ANSWER


@pytest.mark.parametrize(
    "error",
    [
        errors.ZerofsError("z"),
        errors.CorruptionError("compacted/1: damaged"),
        errors.RollbackError("r"),
        errors.UnavailableError("no answer \udcff"),
        errors.PreconditionFailedError("taken"),
    ],
)
def test_errors_keep_their_class_and_text(error):
    found = decode_answer(encode_answer(Answer(outcome=error))).outcome
    assert (type(found), str(found)) == (type(error), str(error))


def test_errors_of_other_rooms_become_the_nearest_class_that_both_ends_know():
    class NearError(errors.CorruptionError):
        pass

    for error, kind in [(NearError("x"), errors.CorruptionError), (errors.FsError(5), errors.ZerofsError)]:
        assert type(decode_answer(encode_answer(Answer(outcome=error))).outcome) is kind


def test_no_secret_in_a_repr():
    for shown in (repr(SETUP), str(SETUP), f"{SETUP}"):
        assert "s3://bucket" in shown
        for secret in ("an-access-key", "a-secret-key", "\\x11", "\\x77", "11111111", "77777777", "wwww"):
            assert secret not in shown


def test_no_secret_in_an_error():
    text = encode_setup(SETUP)
    secrets = ("an-access-key", "a-secret-key", "11111111", "77777777")
    for damaged in (
        text[:-1],
        text[:-1] + b"x",
        text.replace(b'"url"', b'"uri"'),
        text.replace(b'"11111', b'"X1111'),
        text.replace(b"https://store", b"ftp://a-secret-key"),
        text.replace(b'"endpoint"', b'"a-secret-key"'),
    ):
        with pytest.raises(MessageError) as caught:
            decode_setup(damaged)
        error = caught.value
        assert not any(secret in str(error) for secret in secrets)
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__


@pytest.mark.parametrize(("payload", "decode"), MESSAGES)
def test_every_truncation_is_refused(payload, decode):
    decode(payload)
    for length in range(len(payload)):
        with pytest.raises(MessageError):
            decode(payload[:length])


@given(st.binary(max_size=200), st.sampled_from(MESSAGES))
def test_garbage_is_refused(garbage, message):
    with pytest.raises(MessageError):
        message[1](garbage)


@given(st.data())
def test_whatever_replaces_a_value_is_refused_or_decoded_as_itself(data):
    """No value of a wrong kind gets through, wherever it stands."""
    payload, decode = data.draw(st.sampled_from(MESSAGES))
    content = json.loads(payload)
    holder, place = data.draw(st.sampled_from(list(places(content))))
    holder[place] = data.draw(
        st.sampled_from([None, True, -1, 1.5, 2**64, "", "abc", "0G", "AB", [], {}, [1], {"a": 1}, "ab" * 2000])
    )
    try:
        decoded = decode(json.dumps(content).encode())
    except MessageError:
        return
    if isinstance(decoded, Setup):
        encoded = encode_setup(decoded)
    else:
        encoded = encode_job(decoded) if isinstance(decoded, CompactionJob) else encode_answer(decoded)
    assert json.loads(encoded) == content


@pytest.mark.parametrize(("payload", "decode"), MESSAGES)
def test_numbers_are_no_flags_and_flags_no_numbers(payload, decode):
    kinds = {bool: 1, int: True}
    count = sum(type(holder[place]) in kinds for holder, place in places(json.loads(payload)))
    assert count
    for chosen in range(count):
        content = json.loads(payload)
        found = [(holder, place) for holder, place in places(content) if type(holder[place]) in kinds]
        holder, place = found[chosen]
        holder[place] = kinds[type(holder[place])]
        with pytest.raises(MessageError):
            decode(json.dumps(content).encode())


@pytest.mark.parametrize(("payload", "decode"), MESSAGES)
def test_no_object_may_hold_anything_unknown(payload, decode):
    def objects(content):
        return [content] + [
            holder[place]
            for holder, place in places(content)
            if isinstance(holder[place], dict) and not isinstance(holder, list)
        ]

    for chosen in range(len(objects(json.loads(payload)))):
        content = json.loads(payload)
        objects(content)[chosen]["more"] = 1
        with pytest.raises(MessageError):
            decode(json.dumps(content).encode())


def places(content):
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for place, value in list(items):
        yield content, place
        if isinstance(value, dict | list):
            yield from places(value)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.update(zerofs=1),
        lambda message: message.update(zerofs=3),
        lambda message: message.update(more=1),
        lambda message: message["job"].update(more=1),
        lambda message: message["job"]["runs"][0].update(more=1),
        lambda message: message["job"]["runs"][0].update(ssts=[]),
        lambda message: message["job"].pop("token"),
        lambda message: message["job"].update(token="00"),
        lambda message: message["job"].update(block_size_bytes=0),
        lambda message: message["job"]["tokens"].append(message["job"]["tokens"][0]),
    ],
)
def test_what_is_unknown_missing_or_twice_is_refused(change):
    message = json.loads(encode_job(JOB))
    change(message)
    with pytest.raises(MessageError):
        decode_job(json.dumps(message).encode())


def test_a_setup_must_hold_its_current_key():
    with pytest.raises(MessageError, match="current key"):
        decode_setup(encode_setup(replace(SETUP, current=KeyId(2))))


# --- framing ---------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=50), max_size=5), st.data())
def test_frames_survive_any_division(payloads, data):
    stream = b"".join(map(frame, payloads))
    unframer, found = Unframer(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        unframer.feed(stream[:size])
        stream = stream[size:]
        while (payload := unframer.take()) is not None:
            found.append(payload)
    unframer.end()
    assert found == payloads


def test_a_cut_frame_is_an_error_and_never_a_payload():
    whole = frame(b"payload")
    for length in range(1, len(whole)):
        unframer = Unframer()
        unframer.feed(whole[:length])
        assert unframer.take() is None
        with pytest.raises(MessageError):
            unframer.end()


def test_too_long_a_message_is_refused_before_it_comes(monkeypatch):
    unframer = Unframer()
    unframer.feed(struct.pack("<I", MESSAGE_LIMIT_BYTES + 1))
    with pytest.raises(MessageError, match=str(MESSAGE_LIMIT_BYTES + 1)):
        unframer.take()
    monkeypatch.setattr(framing, "MESSAGE_LIMIT_BYTES", 3)
    assert frame(b"abc") == b"\3\0\0\0abc"
    with pytest.raises(MessageError):
        frame(b"abcd")
