"""Password slots: from a password to the slot's private key, and from there to the root key.

Blocking and pure: Argon2 takes about 0.1 s and 64 MiB, so `vault` calls these in a thread; salts, nonces and keys come
in. What a slot's bytes look like is the business of `format`; what the root key opens, of `chain`.
"""

from dataclasses import dataclass, replace

from zerofs.crypto import aead, box
from zerofs.crypto.kdf import KdfCost, argon2id
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError
from zerofs.keys.format import VERSION, PasswordProtector, Slot, encode_kdf
from zerofs.wire import Writer


@dataclass(slots=True, frozen=True, kw_only=True)
class SlotContext:
    """What a slot is bound to besides itself: its volume, and the authority that boxes root keys there."""

    volume_id: bytes
    authority: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class SlotEntropy:
    """Fresh random bytes for sealing a private key: a salt of 16, a nonce of 24."""

    salt: bytes
    nonce: bytes


def protect(
    context: SlotContext, slot: Slot, private_key: Secret, password: Secret, cost: KdfCost, entropy: SlotEntropy
) -> Slot:
    """The slot with its private key sealed under `password`, whatever protected it before. Blocks for the KDF.

    Raises:
        CorruptionError: the cost is outside the limits; nothing was computed.
    """
    kek = argon2id(password, entropy.salt, cost)
    protector = PasswordProtector(cost=cost, salt=entropy.salt, nonce=entropy.nonce, sealed_private_key=b"")
    sealed = aead.seal(kek, protector.nonce, private_key.reveal(), _private_key_aad(context, slot, protector))
    return replace(slot, protector=replace(protector, sealed_private_key=sealed))


def open_private_key(context: SlotContext, slot: Slot, password: Secret) -> Secret | None:
    """The slot's private key, or None: another password, altered, or not a slot that a password opens. Blocks.

    Raises:
        CorruptionError: the cost is outside the limits; nothing was computed.
    """
    protector = slot.protector
    if not isinstance(protector, PasswordProtector):
        return None
    kek = argon2id(password, protector.salt, protector.cost)
    aad = _private_key_aad(context, slot, protector)
    try:
        return Secret(aead.open_(kek, protector.nonce, protector.sealed_private_key, aad))
    except CorruptionError:
        return None


def _private_key_aad(context: SlotContext, slot: Slot, protector: PasswordProtector) -> bytes:
    """Every clear fact that somebody who has only the password relies on."""
    label = slot.label.encode()
    out = Writer().u32(VERSION).raw(context.volume_id).raw(context.authority)
    out.u32(slot.kind).u64(len(label)).raw(label).u64(slot.created_at_ns).raw(slot.public_key)
    return out.raw(encode_kdf(protector)).getvalue()


def box_root(root: Secret, nonce: bytes, *, slot_public: bytes, authority_private: Secret) -> bytes:
    """The root key, for the holder of a slot's private key and from the authority."""
    return box.seal(root.reveal(), nonce, recipient=slot_public, sender_private=authority_private.reveal())


def open_root(context: SlotContext, slot: Slot, private_key: Secret) -> Secret:
    """The root key. Raises CorruptionError if the authority did not box it for this slot."""
    key = private_key.reveal()
    return Secret(box.open_(slot.boxed_root, slot.root_nonce, recipient_private=key, sender=context.authority))
