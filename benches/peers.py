"""The peers: other filesystems that encrypt, or that lie on an object store, where they are installed."""

import contextlib
import os
import shutil

from benches.mounts import require, run, unmount, wait_until_mounted
from benches.processes import processes_with
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
