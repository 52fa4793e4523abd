import os

from zerofs.crypto import aead
from zerofs.ids import KeyId
from zerofs.lsm.sealing.messages import Setup
from zerofs.transform.compression import Compression
from zerofs.transform.frame import Kind, Sealer

VOLUME_ID = b"V" * 16
KEY_ID = KeyId(7)
KEY = bytes(range(100, 132))
COMPRESSION = Compression.parse("zstd-3")


def make_setup():
    return Setup(volume_id=VOLUME_ID, key_id=KEY_ID, key=KEY, compression=COMPRESSION)


def make_sealer():
    return Sealer(volume_id=VOLUME_ID, kind=Kind.CHUNK, subkeys={KEY_ID: KEY}, current=KEY_ID, compression=COMPRESSION)


def make_nonces(texts):
    return aead.nonces(os.urandom(aead.NONCE_SIZE), len(texts))
