"""The kernel's side of the protocol, for tests: builds requests, takes replies apart; a socket stands for the device.

Layouts are written down here once more, by hand from linux/fuse.h, so that a wrong table is noticed.
"""

import os
import socket
import struct

from zerofs.frontend.fuse.native.protocol import Opcode

INIT_FLAGS = (1 << 31) - 1


def request(opcode, node=1, body=b"", *, unique=2, uid=1000, gid=1000, pid=77):
    """A whole message."""
    return struct.pack("<IIQQIIIHH", 40 + len(body), opcode, unique, node, uid, gid, pid, 0, 0) + body


def init(flags=INIT_FLAGS, major=7, minor=45):
    return struct.pack("<IIIII", major, minor, 1 << 20, flags, 0) + bytes(44)


class Kernel:
    """One end of a connection; the server has `descriptor`."""

    def __init__(self):
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(10)
        for end in (self._ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        theirs.setblocking(False)
        self.descriptor = theirs.detach()
        self._unique = 0

    def send(self, opcode, node=1, body=b"", **options):
        """Ask something; its number."""
        self._unique += 2
        self._ours.send(request(opcode, node, body, unique=self._unique, **options))
        return self._unique

    def send_raw(self, message):
        self._ours.send(message)

    def receive(self):
        """The next reply: (unique, errno, payload)."""
        message = self._ours.recv(2 << 20)
        length, error, unique = struct.unpack_from("<IiQ", message)
        assert length == len(message)
        return unique, -error, message[16:]

    def nothing_came(self):
        self._ours.setblocking(False)
        try:
            self._ours.recv(1)
        except BlockingIOError:
            return True
        finally:
            self._ours.settimeout(10)
        return False

    def begin(self, **options):
        """The first exchange; the reply's payload."""
        number = self.send(Opcode.INIT, 0, init(**options))
        unique, error, payload = self.receive()
        assert (unique, error) == (number, 0)
        return payload

    def ask(self, opcode, node=1, body=b"", **options):
        """Ask and wait: (errno, payload)."""
        number = self.send(opcode, node, body, **options)
        unique, error, payload = self.receive()
        assert unique == number
        return error, payload

    def end(self):
        """As after umount."""
        self._ours.close()

    def close(self):
        self._ours.close()
        os.close(self.descriptor)
