"""The sealing process: `python -m zerofs.lsm.sealing.child SOCKET MEMORY`, started by `process.ProcessSealer` alone.

The arguments are descriptors: of a socket that keeps packets whole, and of the arena. Batches are sealed one after the
other, until the socket's other end is closed, also by the death of whoever held it.
"""

import contextlib
import gc
import signal
import socket
import sys

from zerofs.lsm.sealing.arena import Arena
from zerofs.lsm.sealing.messages import PACKET_MAX, READY, decode_batch, decode_setup, encode_sealed
from zerofs.process import harden
from zerofs.transform.frame import Kind, Sealer


def serve(conversation: socket.socket, arena: Arena) -> None:
    """Take the setup, then batches; returns when the other end is closed."""
    setup = decode_setup(conversation.recv(PACKET_MAX))
    sealer = Sealer(
        volume_id=setup.volume_id,
        kind=Kind.CHUNK,
        subkeys={setup.key_id: setup.key},
        current=setup.key_id,
        compression=setup.compression,
    )
    gc.freeze()
    gc.disable()  # Nothing below makes cycles.
    conversation.send(READY)
    while packet := conversation.recv(PACKET_MAX):
        slot, count = decode_batch(packet)
        arena.seal(slot, count, sealer)
        conversation.send(encode_sealed(slot))


def main() -> None:
    """Be the sealing process of whoever is at the other end of the socket."""
    harden()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the mount, which still has chunks to seal
    descriptor, memory = map(int, sys.argv[1:])
    # ConnectionError: the mount is gone, and with it whoever would want the frames.
    with socket.socket(fileno=descriptor) as conversation, contextlib.suppress(ConnectionError):
        serve(conversation, Arena(memory))


if __name__ == "__main__":
    main()
