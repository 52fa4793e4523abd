"""System calls for which Python has no function, or none with all flags."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_AT_FDCWD = -100
_AT_SYMLINK_FOLLOW = 0x400


def _checked(result):
    if result:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def renameat2(old, new, flags):
    """rename, with flags."""
    _checked(_libc.renameat2(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags))


def link_opened(descriptor, new):
    """linkat(2) of an open file: with AT_SYMLINK_FOLLOW, which os.link does not pass."""
    path = b"/proc/self/fd/%d" % descriptor
    _checked(_libc.linkat(_AT_FDCWD, path, _AT_FDCWD, os.fsencode(new), _AT_SYMLINK_FOLLOW))


def fallocate(descriptor, mode, start=0, size=4096):
    """Its modes, too."""
    _checked(_libc.fallocate(descriptor, mode, ctypes.c_long(start), ctypes.c_long(size)))
