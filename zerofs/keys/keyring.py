"""The keys of an opened volume: DEK generations, and the sealers made from them.

Not for opening the sidecar (`vault`). A keyring holds key material: it has no telling repr and cannot be pickled.
"""

from collections.abc import Sequence
from typing import NoReturn, final

from zerofs.crypto.kdf import Purpose, hkdf_sha256
from zerofs.ids import KeyId
from zerofs.keys.format import Generation
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind, Sealer


@final
class Keyring:
    """DEK generations of one volume. New frames use the current one; older ones still open."""

    __slots__ = ("_generations", "volume_id")

    def __init__(self, *, volume_id: bytes, generations: Sequence[Generation]) -> None:
        assert generations, "a keyring has at least one generation"
        self.volume_id = volume_id
        self._generations = tuple(generations)

    @property
    def key_ids(self) -> tuple[KeyId, ...]:
        """The generations that are held, ascending."""
        return tuple(generation.key_id for generation in self._generations)

    @property
    def current(self) -> KeyId:
        """The generation that new frames are sealed under."""
        return self._generations[-1].key_id

    def sealer(self, purpose: Purpose, kind: Kind, compression: Compression) -> Sealer:
        """A sealer under the subkeys HKDF(DEK generation, purpose)."""
        return Sealer(
            volume_id=self.volume_id,
            kind=kind,
            subkeys=self.subkeys(purpose),
            current=self.current,
            compression=compression,
        )

    def subkeys(self, purpose: Purpose) -> dict[KeyId, bytes]:
        """The bare subkeys of one purpose, by generation.

        Bytes that show themselves in any repr and that nothing wipes: only for a process of our own that must seal and
        open for this purpose, over a pipe that nobody else holds, and for the sealed foreign table of a clone (0016).
        Everybody else takes a sealer.
        """
        return {generation.key_id: hkdf_sha256(generation.dek.reveal(), purpose) for generation in self._generations}

    def wipe(self) -> None:
        """Forget the DEKs, as far as Python can. Sealers that were made before keep working."""
        for generation in self._generations:
            generation.dek.wipe()

    def __repr__(self) -> str:
        return f"Keyring(volume {self.volume_id.hex()}, generations {list(self.key_ids)})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a keyring cannot be pickled or copied")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a keyring cannot be pickled or copied")
