"""The peers: other filesystems that encrypt, or that lie on an object store, where they are installed."""

import contextlib
import os
import shutil

from benches.mounts import UnavailableError, is_mounted, require, run, unmount, wait_until_mounted
from benches.processes import processes_with, wait_until_gone
from benches.systems import LOCAL_DISK, MEMORY, PASSWORD, STORE, System


class Gocryptfs(System):
    """Encrypts file by file onto the disk below: no log, no store."""

    name = "gocryptfs"
    acknowledges_close = MEMORY
    acknowledges_fsync = LOCAL_DISK

    def prepare(self):
        require("gocryptfs")
        super().prepare()
        self.cipher, self.password = self.base / "cipher", self.base / "password"
        self.cipher.mkdir()
        self.password.write_text(PASSWORD + "\n")
        run(["gocryptfs", "-init", "-q", "-passfile", str(self.password), str(self.cipher)])

    def start(self):
        run(["gocryptfs", "-q", "-passfile", str(self.password), str(self.cipher), str(self.directory)])

    def stop(self):
        unmount(self.directory)

    def pids(self):
        return processes_with(b"gocryptfs", str(self.directory).encode())


class S3fs(System):
    """One object per file, uploaded when it is closed; not encrypted."""

    name = "s3fs"
    acknowledges_close = STORE
    acknowledges_fsync = STORE

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def prepare(self):
        require("s3fs")
        super().prepare()
        self.password = self.base / "password"
        self.password.touch(mode=0o600)
        self.password.write_text(f"{self.server.access_key_id}:{self.server.secret_access_key}\n")
        with contextlib.closing(self.server.client()) as client:
            client.put_object(Bucket=self.server.bucket, Key="s3fs/", Body=b"")

    def start(self):
        options = f"passwd_file={self.password},url={self.server.endpoint},use_path_request_style"
        run(["s3fs", f"{self.server.bucket}:/s3fs", str(self.directory), "-o", options])
        wait_until_mounted(self.directory)

    def stop(self):
        unmount(self.directory)

    def pids(self):
        return processes_with(b"s3fs", str(self.directory).encode())


class Rclone(System):
    """One object per file; writes go to a cache on the disk first and are uploaded later; not encrypted."""

    name = "rclone"
    acknowledges_close = LOCAL_DISK
    acknowledges_fsync = LOCAL_DISK

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def prepare(self):
        require("rclone")
        super().prepare()
        self.config = self.base / "rclone.conf"
        self.config.write_text(
            f"[bench]\ntype = s3\nprovider = Minio\nendpoint = {self.server.endpoint}\n"
            f"access_key_id = {self.server.access_key_id}\nsecret_access_key = {self.server.secret_access_key}\n"
        )

    def start(self):
        options = [
            "--vfs-cache-mode",
            "writes",
            "--vfs-write-back",
            "0s",
            "--cache-dir",
            str(self.base / "cache"),
            "--daemon",
        ]
        source = f"bench:{self.server.bucket}/rclone"
        # Its S3 library refuses to start with a bundle of certificates that it has no use for on this endpoint.
        environment = {name: value for name, value in os.environ.items() if name != "AWS_CA_BUNDLE"}
        command = ["rclone", "--config", str(self.config), "mount", *options, source, str(self.directory)]
        run(command, environment=environment)
        wait_until_mounted(self.directory)

    def stop(self):
        unmount(self.directory)

    def make_cold(self):
        self.stop()
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.start()

    def pids(self):
        return processes_with(b"rclone", str(self.directory).encode())


class Cryfs(System):
    """Encrypts blocks of 16 KiB, each a file on the disk below; structure and sizes are hidden too. It never syncs what
    it writes, and has written little of it when fsync returns."""

    name = "cryfs"
    acknowledges_close = MEMORY
    acknowledges_fsync = MEMORY

    def prepare(self):
        require("cryfs")
        super().prepare()
        self.cipher = self.base / "cipher"
        self.cipher.mkdir()

    def start(self):
        quiet = {"CRYFS_FRONTEND": "noninteractive", "CRYFS_NO_UPDATE_CHECK": "true"}
        # What it remembers of the volumes that it has seen.
        own = {"CRYFS_LOCAL_STATE_DIR": str(self.base / "state")}
        run(["cryfs", str(self.cipher), str(self.directory)], os.environ | quiet | own, said=PASSWORD)
        wait_until_mounted(self.directory)

    def stop(self):
        pids = self.pids()
        unmount(self.directory)
        # It goes on writing after that, and refuses to be mounted twice.
        wait_until_gone(pids)

    def pids(self):
        return processes_with(b"cryfs", str(self.directory).encode())


class Juicefs(System):
    """Blocks of files in a store, encrypted with a key pair; names and structure in a SQLite database on the local
    disk, not encrypted. A directory as its store is written without a sync."""

    name = "juicefs"
    acknowledges_close = "store, unsynced"
    acknowledges_fsync = "store, unsynced"

    def __init__(self, base):
        super().__init__(base)
        self.log = str(self.base / "log")

    def prepare(self):
        program = shutil.which("juicefs")
        if program is None:
            raise UnavailableError("juicefs is not on the path")
        require("openssl")
        super().prepare()
        self.program, self.meta = program, f"sqlite3://{self.base / 'meta.db'}"
        self.environment = os.environ | {"JFS_RSA_PASSPHRASE": PASSWORD}
        key = self.base / "key.pem"
        run(
            ["openssl", "genrsa", "-aes256", "-passout", "env:JFS_RSA_PASSPHRASE", "-out", str(key), "2048"],
            self.environment,
        )
        options = ["--encrypt-rsa-key", str(key), "--trash-days", "0", *self._store()]
        run([program, "format", *options, self.meta, "bench"], self.environment)

    def _store(self):
        return ["--storage", "file", "--bucket", f"{self.base / 'store'}/"]

    def start(self):
        options = [
            "--log",
            self.log,
            "--hide-internal",
            "--no-usage-report",
            "--backup-meta",
            "0",
            "--metrics",
            "127.0.0.1:0",
        ]
        options += ["--cache-dir", str(self.base / "cache"), "--cache-size", "4096"]
        run([self.program, "mount", "--background", *options, self.meta, str(self.directory)], self.environment)
        wait_until_mounted(self.directory)

    def stop(self):
        if not is_mounted(self.directory):
            return
        pids = self.pids()
        run([self.program, "umount", str(self.directory)])
        wait_until_gone(pids)

    def make_cold(self):
        self.stop()
        shutil.rmtree(self.base / "cache", ignore_errors=True)
        self.start()

    def pids(self):
        # It cuts its command line after some 250 bytes, so the mountpoint at the end may not be there.
        return processes_with(b"juicefs", b"mount", self.log.encode())


class JuicefsOnS3(Juicefs):
    """The same, with blocks on an S3 server."""

    name = "juicefs-s3"
    acknowledges_close = STORE
    acknowledges_fsync = STORE

    def __init__(self, base, server):
        super().__init__(base)
        self.server = server

    def _store(self):
        return [
            *("--storage", "minio", "--bucket", f"{self.server.endpoint}/{self.server.bucket}"),
            *("--access-key", self.server.access_key_id, "--secret-key", self.server.secret_access_key),
        ]
