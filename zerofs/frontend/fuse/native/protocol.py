"""Numbers and layouts of the kernel's FUSE protocol, version 7. Tables only.

Everything is in the machine's byte order. A request is a header and what its opcode asks for; a reply is a header and
what the opcode promises. Source: linux/fuse.h, versions 7.12 to 7.45.

    request     length u32 | opcode u32 | unique u64 | node u64 | uid u32 | gid u32 | pid u32 | extensions u16 | u16
    reply       length u32 | error i32 (0, or -errno) | unique u64
    notice      length u32 | code i32 | 0 u64
"""

from enum import IntEnum, IntFlag
from struct import Struct

MAJOR = 7
MINOR = 45
"""The newest version that these tables know."""

MINOR_MIN = 31
"""The oldest that is spoken: Linux 5.4."""

ROOT_NODE = 1

IN_HEADER = Struct("=IIQQIIIHH")
OUT_HEADER = Struct("=IiQ")


class Opcode(IntEnum):
    """What a request asks for."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41
    BATCH_FORGET = 42
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50
    TMPFILE = 51
    STATX = 52
    COPY_FILE_RANGE_64 = 53


class Init(IntFlag):
    """What both sides can do. The upper half travels in a field of its own."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    FLOCK_LOCKS = 1 << 10
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30


class Valid:
    """Which fields of a SETATTR count. Plain numbers: closing a file that was written to asks for six of them."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    HANDLE = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCK_OWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11


OPEN_DIRECT_IO = 1 << 0
OPEN_KEEP_CACHE = 1 << 1
OPEN_CACHE_DIR = 1 << 3
"""What a reply to an OPEN may say."""

GETATTR_HANDLE = 1 << 0
WRITE_CACHE = 1 << 0
WRITE_KILL_SUIDGID = 1 << 2
OPEN_KILL_SUIDGID = 1 << 0
FSYNC_DATA = 1 << 0

NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3

# What follows the header of a request, up to the names.
NODE = Struct("=Q")
FORGET_ONE = Struct("=QQ")
BATCH_FORGET = Struct("=II")
GETATTR = Struct("=IIQ")
SETATTR = Struct("=IIQQQqqqIIIIIIII")
MKNOD = Struct("=IIII")
MKDIR = Struct("=II")
RENAME2 = Struct("=QII")
OPEN = Struct("=II")
CREATE = Struct("=IIII")
RELEASE = Struct("=QIIQ")
FLUSH = Struct("=QIIQ")
READ = Struct("=QQIIQII")
WRITE = Struct("=QQIIQII")
FSYNC = Struct("=QII")
SETXATTR = Struct("=II")
GETXATTR = Struct("=II")
ACCESS = Struct("=II")
INIT = Struct("=IIII")
INIT_FLAGS2 = Struct("=I")
INTERRUPT = Struct("=Q")
FALLOCATE = Struct("=QQQII")
LSEEK = Struct("=QQII")
COPY_FILE_RANGE = Struct("=QQQQQQQ")
STATX = Struct("=IIQII")

# What follows the header of a reply. Times have their seconds signed, whatever the header file says.
ATTR = Struct("=QQQqqqIIIIIIIIII")
ENTRY_HEAD = Struct("=QQQQII")
ATTR_HEAD = Struct("=QII")
OPEN_OUT = Struct("=QII")
WRITE_OUT = Struct("=II")
STATFS_OUT = Struct("=QQQQQIIII24x")
SIZE_OUT = Struct("=II")
LSEEK_OUT = Struct("=Q")
INIT_OUT = Struct("=IIIIHHIIHHI28x")
DIRENT = Struct("=QQII")
DIRENT_PLUS = Struct(ENTRY_HEAD.format + ATTR.format[1:] + DIRENT.format[1:])
"""The three of them."""

STATX_HEAD = Struct("=QII16x")
STATX_OUT = Struct("=IIQIIIH2xQQQQqI4xqI4xqI4xqI4xII120x")
INVAL_INODE = Struct("=Qqq")
INVAL_ENTRY = Struct("=QII")
