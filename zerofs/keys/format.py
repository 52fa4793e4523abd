"""The bytes of `zerofs.key` (docs/format/sidecar.md, decision 0007). Pure codec: it opens nothing.

Integers are little-endian and of fixed width; what varies has a u64 length before it.

    offset  size  field
    0       8     magic "ZEROFKEY"
    8       4     version, u32: 1
    12      16    put-id, random, new for every write
    28      16    volume id
    44      32    authority public key (X25519)
    76      8     slot count, u64: 1 to 16
    84      …     slots
    …       24    keyring nonce
    …       8+n   sealed keyring: length u64 (at most 65,536), bytes
    …       32    MAC: HMAC-SHA256 under HKDF(root, sidecar-mac) over everything before it

    slot:   4     kind, u32: 1 password
            8+n   label, UTF-8, at most 64 bytes
            8     created at, u64, nanoseconds since 1970
            32    slot public key (X25519)
            24    root nonce
            48    root key, boxed from the authority to the slot
            8+n   protector, at most 1,024 bytes: what the kind defines

    protector of a password slot:
            4     KDF id, u32: 1 Argon2id version 0x13
            4     memory, u32, KiB
            4     passes, u32
            4     lanes, u32
            16    salt
            24    nonce
            48    slot private key, sealed under the KEK (XChaCha20-Poly1305)

    keyring, opened:
            32    authority private key
            8     generation count, u64: 1 to 1,024
            then for each, key ids ascending, the last is the current one:
            4     key id, u32, not 0
            8     created at, u64, nanoseconds since 1970
            32    DEK

Valid when (1) magic and version are known, (2) every length is within its limit and nothing is left over, (3) every
KDF cost is within the limits of `crypto.kdf`, and all of them together within MAX_TOTAL_WORK_KIB. A protector of an
unknown kind or KDF is kept as it is. Authenticity is for `vault` to establish.
"""

from dataclasses import dataclass

from zerofs.crypto import aead, box
from zerofs.crypto.kdf import KEY_SIZE, MAX_WORK_KIB, SALT_SIZE, KdfCost
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError, UnsupportedFormatError
from zerofs.ids import PUT_ID_SIZE, VOLUME_ID_SIZE, KeyId
from zerofs.wire import Reader, Writer

SIDECAR_NAME = "zerofs.key"

MAGIC = b"ZEROFKEY"
VERSION = 1
MAC_SIZE = 32

KIND_PASSWORD = 1
KDF_ARGON2ID = 1

MAX_SLOTS = 16
MAX_LABEL_SIZE = 64
MAX_PROTECTOR_SIZE = 1024
MAX_SEALED_KEYRING_SIZE = 65536
MAX_GENERATIONS = 1024
MAX_SIDECAR_SIZE = 1 << 17
"""Bytes of the object: more than all its fields at their limits."""

MAX_TOTAL_WORK_KIB = 4 * MAX_WORK_KIB
"""Most memory times passes over all slots: what a wrong password, or a forged sidecar, can cost."""

_SEALED_KEY_SIZE = KEY_SIZE + aead.TAG_SIZE
_BOXED_KEY_SIZE = KEY_SIZE + box.OVERHEAD


@dataclass(slots=True, frozen=True, kw_only=True)
class PasswordProtector:
    """How a password protects its slot's private key."""

    cost: KdfCost
    salt: bytes
    nonce: bytes
    sealed_private_key: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class UnknownProtector:
    """A protector of a kind or KDF that this version does not know, byte for byte."""

    data: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class Slot:
    """One way to the root key."""

    kind: int
    label: str
    created_at_ns: int
    public_key: bytes
    root_nonce: bytes
    boxed_root: bytes
    protector: PasswordProtector | UnknownProtector


@dataclass(slots=True, frozen=True, kw_only=True)
class Sidecar:
    """A decoded sidecar. `authenticated` are its bytes before the MAC; empty when it was not decoded but built."""

    put_id: bytes
    volume_id: bytes
    authority: bytes
    slots: tuple[Slot, ...]
    keyring_nonce: bytes
    sealed_keyring: bytes
    mac: bytes = b""
    authenticated: bytes = b""


@dataclass(slots=True, frozen=True, kw_only=True)
class Generation:
    """One DEK."""

    key_id: KeyId
    created_at_ns: int
    dek: Secret


def encode_body(sidecar: Sidecar) -> bytes:
    """Everything before the MAC: what the MAC is made over, and what the object begins with."""
    out = Writer().raw(MAGIC).u32(VERSION).raw(sidecar.put_id).raw(sidecar.volume_id).raw(sidecar.authority)
    out.u64(len(sidecar.slots))
    for slot in sidecar.slots:
        label = slot.label.encode()
        out.u32(slot.kind).u64(len(label)).raw(label).u64(slot.created_at_ns).raw(slot.public_key)
        protector = _encode_protector(slot.protector)
        out.raw(slot.root_nonce).raw(slot.boxed_root).u64(len(protector)).raw(protector)
    out.raw(sidecar.keyring_nonce).u64(len(sidecar.sealed_keyring)).raw(sidecar.sealed_keyring)
    return out.getvalue()


def decode_sidecar(data: bytes) -> Sidecar:
    """A sidecar from the bytes of the object.

    Raises:
        CorruptionError: not a sidecar, malformed, or a KDF cost beyond the limits. Nothing costly was done; nothing is
            authenticated yet.
        UnsupportedFormatError: of a newer version, or so it says.
    """
    reader = Reader(data, SIDECAR_NAME)
    if data[: len(MAGIC)] != MAGIC:
        raise CorruptionError(f"{SIDECAR_NAME} is not a zerofs key: restore the right object from a backup")
    reader.raw(len(MAGIC))
    version = reader.u32()
    if version != VERSION:
        raise (UnsupportedFormatError if version > VERSION else CorruptionError)(
            f"{SIDECAR_NAME} has version {version}; this zerofs reads version {VERSION} only: use a newer zerofs, or"
            " restore the object from a backup if it was altered"
        )
    put_id, volume_id, authority = reader.raw(PUT_ID_SIZE), reader.raw(VOLUME_ID_SIZE), reader.raw(box.KEY_SIZE)
    slots = tuple(_decode_slot(reader) for _ in range(_count(reader, MAX_SLOTS, "slots")))
    _check_total_work(slots)
    keyring_nonce = reader.raw(aead.NONCE_SIZE)
    sealed_keyring = _sized(reader, MAX_SEALED_KEYRING_SIZE)
    mac = reader.raw(MAC_SIZE)
    reader.expect_end()
    return Sidecar(
        put_id=put_id,
        volume_id=volume_id,
        authority=authority,
        slots=slots,
        keyring_nonce=keyring_nonce,
        sealed_keyring=sealed_keyring,
        mac=mac,
        authenticated=data[:-MAC_SIZE],
    )


def _decode_slot(reader: Reader) -> Slot:
    kind = reader.u32()
    label = _sized(reader, MAX_LABEL_SIZE)
    created_at_ns = reader.u64()
    public_key = reader.raw(box.KEY_SIZE)
    root_nonce = reader.raw(box.NONCE_SIZE)
    boxed_root = reader.raw(_BOXED_KEY_SIZE)
    protector = _sized(reader, MAX_PROTECTOR_SIZE)
    try:
        text = label.decode()
    except UnicodeDecodeError as exc:
        raise CorruptionError(f"{SIDECAR_NAME}: a slot's label is not UTF-8") from exc
    return Slot(
        kind=kind,
        label=text,
        created_at_ns=created_at_ns,
        public_key=public_key,
        root_nonce=root_nonce,
        boxed_root=boxed_root,
        protector=_decode_protector(kind, protector),
    )


def _encode_protector(protector: PasswordProtector | UnknownProtector) -> bytes:
    if isinstance(protector, UnknownProtector):
        return protector.data
    return encode_kdf(protector) + protector.nonce + protector.sealed_private_key


def encode_kdf(protector: PasswordProtector) -> bytes:
    """KDF id, cost and salt, as they stand in the protector and in the additional data of the private key."""
    cost = protector.cost
    out = Writer().u32(KDF_ARGON2ID).u32(cost.memory_kib).u32(cost.time_cost).u32(cost.parallelism)
    return out.raw(protector.salt).getvalue()


def _decode_protector(kind: int, data: bytes) -> PasswordProtector | UnknownProtector:
    if kind != KIND_PASSWORD:
        return UnknownProtector(data=data)
    reader = Reader(data, f"{SIDECAR_NAME}: password slot")
    if reader.u32() != KDF_ARGON2ID:
        return UnknownProtector(data=data)
    cost = KdfCost(memory_kib=reader.u32(), time_cost=reader.u32(), parallelism=reader.u32())
    cost.check()
    salt, nonce, sealed = reader.raw(SALT_SIZE), reader.raw(aead.NONCE_SIZE), reader.raw(_SEALED_KEY_SIZE)
    reader.expect_end()
    return PasswordProtector(cost=cost, salt=salt, nonce=nonce, sealed_private_key=sealed)


def _check_total_work(slots: tuple[Slot, ...]) -> None:
    total = sum(slot.protector.cost.work_kib for slot in slots if isinstance(slot.protector, PasswordProtector))
    if total > MAX_TOTAL_WORK_KIB:
        raise CorruptionError(
            f"{SIDECAR_NAME}: key derivation refused before it ran: the slots together ask for {total} KiB of memory"
            f" times passes; at most {MAX_TOTAL_WORK_KIB} are allowed"
        )


def encode_keyring(authority_private: Secret, generations: tuple[Generation, ...]) -> bytes:
    """The keyring's plaintext; `generations` by ascending key id."""
    out = Writer().raw(authority_private.reveal()).u64(len(generations))
    for generation in generations:
        out.u32(generation.key_id).u64(generation.created_at_ns).raw(generation.dek.reveal())
    return out.getvalue()


def decode_keyring(data: bytes) -> tuple[Secret, tuple[Generation, ...]]:
    """Authority private key and generations. Raises CorruptionError."""
    reader = Reader(data, f"{SIDECAR_NAME}: keyring")
    authority_private = Secret(reader.raw(box.KEY_SIZE))
    generations: list[Generation] = []
    last = 0
    for _ in range(_count(reader, MAX_GENERATIONS, "key generations")):
        key_id, created_at_ns, dek = reader.u32(), reader.u64(), Secret(reader.raw(KEY_SIZE))
        if key_id <= last:
            raise CorruptionError(f"{SIDECAR_NAME}: key ids do not ascend")
        last = key_id
        generations.append(Generation(key_id=KeyId(key_id), created_at_ns=created_at_ns, dek=dek))
    reader.expect_end()
    return authority_private, tuple(generations)


def _count(reader: Reader, limit: int, what: str) -> int:
    count = reader.u64()
    if not 1 <= count <= limit:
        raise CorruptionError(f"{SIDECAR_NAME}: {count} {what}; 1 to {limit} expected")
    return count


def _sized(reader: Reader, limit: int) -> bytes:
    size = reader.u64()
    if size > limit:
        raise CorruptionError(f"{SIDECAR_NAME}: length {size} exceeds the limit of {limit}")
    return reader.raw(size)
