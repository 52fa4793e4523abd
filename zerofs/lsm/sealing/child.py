"""The sealing process: `python -m zerofs.lsm.sealing.child SOCKET`, started by `process.ProcessSealer` alone.

The argument is the descriptor of a socket that keeps packets whole. Until this process is hardened, others of the same
user may open what it has: so key and memory come only after it has said hello. Batches are sealed one after the other,
until the socket's other end is closed, also by the death of whoever held it.
"""

import contextlib
import gc
import signal
import socket
import sys

from zerofs.lsm.sealing.arena import Arena
from zerofs.lsm.sealing.messages import HELLO, PACKET_MAX, READY, decode_batch, decode_setup, encode_sealed
from zerofs.process import harden
from zerofs.transform.frame import Kind, Sealer


def serve(conversation: socket.socket) -> None:
    """Say hello, take the setup, then batches; returns when the other end is closed."""
    conversation.send(HELLO)
    packet, descriptors, _, _ = socket.recv_fds(conversation, PACKET_MAX, 1)
    if not packet:
        return
    setup, arena = decode_setup(packet), Arena(descriptors[0])
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
        slot, target, count = decode_batch(packet)
        arena.seal(slot, target, count, sealer)
        conversation.send(encode_sealed(slot))


def main() -> None:
    """Be the sealing process of whoever is at the other end of the socket."""
    harden()
    for number in (signal.SIGINT, signal.SIGTERM):  # also when a service manager sends it to all of a service
        signal.signal(number, signal.SIG_IGN)  # meant for the mount, which still has chunks to seal then
    # ConnectionError: the mount is gone, and with it whoever would want the frames.
    with socket.socket(fileno=int(sys.argv[1])) as conversation, contextlib.suppress(ConnectionError):
        serve(conversation)


if __name__ == "__main__":
    main()
