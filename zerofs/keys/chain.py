"""What the root key opens: the MAC over the sidecar, and the keyring. Pure; nonces come in.

Two subkeys of the root, one purpose each. The MAC covers every byte before it, so whoever opened one slot knows that
the others, and all that is in clear, are as somebody who knew the root left them.
"""

import hmac
from dataclasses import dataclass

from zerofs.crypto import aead, box
from zerofs.crypto.kdf import Purpose, hkdf_sha256
from zerofs.crypto.secret import Secret
from zerofs.errors import CorruptionError
from zerofs.keys.format import (
    MAGIC,
    SIDECAR_NAME,
    VERSION,
    Generation,
    Sidecar,
    Slot,
    decode_keyring,
    encode_body,
    encode_keyring,
)
from zerofs.keys.slots import SlotContext, open_root
from zerofs.wire import Writer


@dataclass(slots=True, frozen=True, kw_only=True)
class OpenedSidecar:
    """An authenticated sidecar and all of its secrets; `slot_index` tells which slot opened it."""

    sidecar: Sidecar
    slot_index: int
    private_key: Secret
    root: Secret
    authority_private: Secret
    generations: tuple[Generation, ...]

    def wipe(self) -> None:
        """Forget what only a change of the sidecar needs. The generations stay: they are the keyring's."""
        for secret in (self.private_key, self.root, self.authority_private):
            secret.wipe()


def context_of(sidecar: Sidecar) -> SlotContext:
    """What the slots of a sidecar are bound to."""
    return SlotContext(volume_id=sidecar.volume_id, authority=sidecar.authority)


def seal_keyring(
    root: Secret,
    nonce: bytes,
    *,
    context: SlotContext,
    authority_private: Secret,
    generations: tuple[Generation, ...],
) -> bytes:
    """The keyring under the root key."""
    text = encode_keyring(authority_private, generations)
    return aead.seal(hkdf_sha256(root.reveal(), Purpose.SIDECAR_KEYRING), nonce, text, _keyring_aad(context))


def encode_sidecar(sidecar: Sidecar, root: Secret) -> bytes:
    """The bytes of the object, with their MAC."""
    body = encode_body(sidecar)
    return body + _mac(root, body)


def open_chain(sidecar: Sidecar, slot_index: int, private_key: Secret) -> OpenedSidecar:
    """Everything, from a decoded sidecar and the private key of one of its slots.

    Raises:
        CorruptionError: the private key is that of the slot, but something else does not authenticate.
    """
    slot = sidecar.slots[slot_index]
    try:
        return _open_chain(sidecar, slot, slot_index, private_key)
    except CorruptionError as exc:
        raise CorruptionError(
            f"{SIDECAR_NAME} was altered or damaged, though the password is right ({exc}): restore it from a backup"
        ) from exc


def _open_chain(sidecar: Sidecar, slot: Slot, slot_index: int, private_key: Secret) -> OpenedSidecar:
    context = context_of(sidecar)
    root = open_root(context, slot, private_key)
    if not hmac.compare_digest(_mac(root, sidecar.authenticated), sidecar.mac):
        raise CorruptionError("its MAC does not fit")
    key = hkdf_sha256(root.reveal(), Purpose.SIDECAR_KEYRING)
    text = aead.open_(key, sidecar.keyring_nonce, sidecar.sealed_keyring, _keyring_aad(context))
    authority_private, generations = decode_keyring(text)
    if box.public_key(authority_private.reveal()) != sidecar.authority:
        raise CorruptionError("its authority keys are not a pair")
    return OpenedSidecar(
        sidecar=sidecar,
        slot_index=slot_index,
        private_key=private_key,
        root=root,
        authority_private=authority_private,
        generations=generations,
    )


def _mac(root: Secret, body: bytes) -> bytes:
    return hmac.digest(hkdf_sha256(root.reveal(), Purpose.SIDECAR_MAC), body, "sha256")


def _keyring_aad(context: SlotContext) -> bytes:
    return Writer().raw(MAGIC).u32(VERSION).raw(context.volume_id).raw(context.authority).getvalue()
