"""The sidecar in the object store: created, opened and changed by conditional puts only (decision 0007).

Every function takes the password as a `Secret` that has passed `password.check_password`. Argon2 runs in threads; what
is opened is wiped as soon as it is not needed, as far as Python can.
"""

import contextlib
from dataclasses import dataclass, replace

from zerofs.crypto import aead, box
from zerofs.crypto.kdf import DEFAULT_COST, SALT_SIZE, KdfCost
from zerofs.crypto.kdf import KEY_SIZE as DEK_SIZE
from zerofs.crypto.secret import Secret
from zerofs.errors import (
    CorruptionError,
    KeyMissingError,
    ObjectNotFoundError,
    PreconditionFailedError,
    UnavailableError,
    WrongPasswordError,
)
from zerofs.ids import PUT_ID_SIZE, VOLUME_ID_SIZE, KeyId
from zerofs.keys.chain import OpenedSidecar, context_of, encode_sidecar, open_chain, seal_keyring
from zerofs.keys.format import (
    KIND_PASSWORD,
    MAX_SIDECAR_SIZE,
    SIDECAR_NAME,
    Generation,
    PasswordProtector,
    Sidecar,
    Slot,
    UnknownProtector,
    decode_sidecar,
)
from zerofs.keys.keyring import Keyring
from zerofs.keys.slots import SlotContext, SlotEntropy, box_root, open_private_key, protect
from zerofs.objectstore import conditional
from zerofs.objectstore.api import ObjectStore
from zerofs.world import Lane, World

PUT_DEADLINE_S = 60.0
"""How long one conditional put may take, read-back and repetitions included."""

_FIRST_KEY_ID = KeyId(1)
_PASSWORD_LABEL = "password"  # noqa: S105 (a slot's label)


async def create(store: ObjectStore, world: World, password: Secret, cost: KdfCost = DEFAULT_COST) -> Keyring:
    """Make the keys of a new volume, store them, and open what is stored.

    Put-if-absent: of two creators one wins, and the other opens the winner's sidecar. The keyring comes from the stored
    object in either case, so a sidecar that does not open is noticed while the volume is empty. Whether a volume may be
    created here is for the caller to know.

    Raises:
        WrongPasswordError: the sidecar that is there already has another password.
        CorruptionError: what was read back does not open, or the cost is outside the limits.
        UnavailableError: the store did not answer in time; whether the sidecar was stored is unknown, and a later
            `create` adopts it if it was.
    """
    body, put_id = await _new_sidecar(world, password, cost)
    world.reached("keys_after_derive_before_create")
    # Suppressed: somebody else was first, and theirs is opened below.
    with contextlib.suppress(PreconditionFailedError):
        await conditional.create(store, world, SIDECAR_NAME, body, put_id, PUT_DEADLINE_S)
    world.reached("keys_after_create_before_read_back")
    return await unseal(store, world, password)


@dataclass(slots=True, frozen=True, kw_only=True)
class Made:
    """Keys of a new volume that are stored nowhere yet. Wipe the keyring at the end."""

    body: bytes
    put_id: bytes
    keyring: Keyring


async def make(world: World, password: Secret, cost: KdfCost = DEFAULT_COST) -> Made:
    """Make the keys of a new volume, and open what `store_made` would store. Raises CorruptionError for a bad cost."""
    body, put_id = await _new_sidecar(world, password, cost)
    return Made(body=body, put_id=put_id, keyring=await _unsealed(world, body, password))


async def store_made(store: ObjectStore, world: World, made: Made) -> None:
    """Store keys that were made; on return they were read back.

    Raises PreconditionFailedError when there is a sidecar already, UnavailableError when it is not known.
    """
    await conditional.create(store, world, SIDECAR_NAME, made.body, made.put_id, PUT_DEADLINE_S)
    data, _ = await _load(store)
    if data != made.body:
        raise PreconditionFailedError(f"another process replaced {SIDECAR_NAME} in {store.url} at the same time")


async def unseal(store: ObjectStore, world: World, password: Secret) -> Keyring:
    """Open the volume's keys.

    Raises:
        KeyMissingError: there is no sidecar.
        WrongPasswordError: no slot opens with this password.
        CorruptionError: the object is malformed or altered.
        UnsupportedFormatError: the object is of a newer version.
    """
    data, _ = await _load(store)
    return await _unsealed(world, data, password)


async def _unsealed(world: World, data: bytes, password: Secret) -> Keyring:
    opened = await _open(world, data, password)
    opened.wipe()
    return Keyring(volume_id=opened.sidecar.volume_id, generations=opened.generations)


async def change_password(
    store: ObjectStore, world: World, old: Secret, new: Secret, cost: KdfCost | None = None
) -> None:
    """Make `new` open the slot that `old` opens; volume id, data and all other slots stay as they are.

    Returns only after the stored object was read back and opened with `new`. `cost` is the slot's own unless given.
    Copies of the old object still open with the old password.

    Raises:
        KeyMissingError: there is no sidecar.
        WrongPasswordError: `old` opens nothing.
        PreconditionFailedError: another process changed the sidecar meanwhile.
        UnavailableError: the store did not answer in time; the message says which passwords to try.
        CorruptionError: the object is altered, or what was read back does not open.
    """
    data, version = await _load(store)
    opened = await _open(world, data, old)
    changed, put_id = await _rewrapped(world, opened, new, cost)
    opened.wipe()
    world.reached("keys_after_derive_before_replace")
    try:
        await conditional.replace(store, world, SIDECAR_NAME, changed, version, put_id, PUT_DEADLINE_S)
    except PreconditionFailedError as exc:
        raise PreconditionFailedError(
            f"another process changed {SIDECAR_NAME} at the same time; this password change was not made: find out"
            " which password holds now, then try again"
        ) from exc
    except UnavailableError as exc:
        raise UnavailableError(
            f"the object store stopped answering while {SIDECAR_NAME} was replaced; it is not known whether the"
            " password was changed: try the new password first, then the old one"
        ) from exc
    world.reached("keys_after_replace_before_read_back")
    await _read_back(store, world, changed, new)


async def _read_back(store: ObjectStore, world: World, expected: bytes, password: Secret) -> None:
    """Open what is stored now. A later change by somebody else is not our failure, unless it took our password away."""
    data, _ = await _load(store)
    try:
        opened = await _open(world, data, password)
    except WrongPasswordError as exc:
        if data != expected:
            raise PreconditionFailedError(
                f"another process replaced {SIDECAR_NAME} right after this password change: the new password does not"
                " hold"
            ) from exc
        raise CorruptionError(
            f"{SIDECAR_NAME} was stored, but does not open with the new password: restore it from a backup"
        ) from exc
    opened.wipe()


async def _load(store: ObjectStore) -> tuple[bytes, str]:
    try:
        return await store.get_versioned(SIDECAR_NAME, limit_bytes=MAX_SIDECAR_SIZE)
    except ObjectNotFoundError as exc:
        raise KeyMissingError(
            f"{SIDECAR_NAME} is missing in {store.url}: restore it from a backup of the volume. Without it nobody can"
            " open the data, whatever the password"
        ) from exc


async def _open(world: World, data: bytes, password: Secret) -> OpenedSidecar:
    """Try the password slots in turn."""
    sidecar = decode_sidecar(data)
    context = context_of(sidecar)
    if not any(isinstance(slot.protector, PasswordProtector) for slot in sidecar.slots):
        raise CorruptionError(
            f"{SIDECAR_NAME} has no slot that a password opens in this version of zerofs: use a newer one, or restore"
            " the object from a backup if it was altered"
        )
    for index, slot in enumerate(sidecar.slots):
        private_key = await world.offload(Lane.CPU, open_private_key, context, slot, password)
        if private_key is not None:
            return open_chain(sidecar, index, private_key)
    raise WrongPasswordError("Failed to unwrap DEK: Invalid password or corrupted key")


async def _new_sidecar(world: World, password: Secret, cost: KdfCost) -> tuple[bytes, bytes]:
    """The bytes of a sidecar with new keys and one password slot, and its put-id."""
    authority_private, root = Secret(world.entropy(box.KEY_SIZE)), Secret(world.entropy(DEK_SIZE))
    private_key = Secret(world.entropy(box.KEY_SIZE))
    context = SlotContext(volume_id=world.entropy(VOLUME_ID_SIZE), authority=box.public_key(authority_private.reveal()))
    now_ns = world.now_ns()
    generation = Generation(key_id=_FIRST_KEY_ID, created_at_ns=now_ns, dek=Secret(world.entropy(DEK_SIZE)))
    slot_public, root_nonce = box.public_key(private_key.reveal()), world.entropy(box.NONCE_SIZE)
    bare = Slot(
        kind=KIND_PASSWORD,
        label=_PASSWORD_LABEL,
        created_at_ns=now_ns,
        public_key=slot_public,
        root_nonce=root_nonce,
        boxed_root=box_root(root, root_nonce, slot_public=slot_public, authority_private=authority_private),
        protector=UnknownProtector(data=b""),
    )
    slot = await world.offload(Lane.CPU, protect, context, bare, private_key, password, cost, _slot_entropy(world))
    keyring_nonce, put_id = world.entropy(aead.NONCE_SIZE), world.entropy(PUT_ID_SIZE)
    sidecar = Sidecar(
        put_id=put_id,
        volume_id=context.volume_id,
        authority=context.authority,
        slots=(slot,),
        keyring_nonce=keyring_nonce,
        sealed_keyring=seal_keyring(
            root, keyring_nonce, context=context, authority_private=authority_private, generations=(generation,)
        ),
    )
    body = _encode(sidecar, root)
    for secret in (authority_private, root, private_key, generation.dek):
        secret.wipe()
    return body, put_id


async def _rewrapped(
    world: World, opened: OpenedSidecar, password: Secret, cost: KdfCost | None
) -> tuple[bytes, bytes]:
    """The bytes of the same sidecar with one slot's private key under another password, and its put-id."""
    sidecar = opened.sidecar
    slot = sidecar.slots[opened.slot_index]
    assert isinstance(slot.protector, PasswordProtector), "a password opened it"
    changed = await world.offload(
        Lane.CPU,
        protect,
        context_of(sidecar),
        slot,
        opened.private_key,
        password,
        cost or slot.protector.cost,
        _slot_entropy(world),
    )
    put_id = world.entropy(PUT_ID_SIZE)
    slots = (*sidecar.slots[: opened.slot_index], changed, *sidecar.slots[opened.slot_index + 1 :])
    return _encode(replace(sidecar, put_id=put_id, slots=slots), opened.root), put_id


def _encode(sidecar: Sidecar, root: Secret) -> bytes:
    """The bytes to put. Raises CorruptionError for what no zerofs would read back, such as a cost beyond the limits."""
    body = encode_sidecar(sidecar, root)
    decode_sidecar(body)
    return body


def _slot_entropy(world: World) -> SlotEntropy:
    return SlotEntropy(salt=world.entropy(SALT_SIZE), nonce=world.entropy(aead.NONCE_SIZE))
