"""The object stores that the mounts of these tests lie on, and a way to look at them behind zerofs's back.

Nothing here goes through zerofs: what these tests read, damage, copy and search is what the bucket really holds.
"""

import contextlib
import os
import shutil
import uuid
from pathlib import Path
from typing import Protocol

import pytest

from tests.servers import Server, missing_minio

KINDS = ("file", "moto", "minio")
HOUSEKEEPING = ".zerofs_local"
"""Where the local store keeps its lock: no object."""


class Store(Protocol):
    """A place for one volume. Names are those of objects, without the volume's prefix."""

    kind: str
    url: str

    def settings(self) -> dict[str, dict[str, object]]:
        """The tables of the configuration that reach it."""
        ...

    def names(self) -> list[str]: ...

    def size_bytes(self) -> int:
        """All objects together, while others may make and delete some."""
        ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, body: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    def metadata(self, name: str) -> str:
        """What the store keeps beside the object's bytes."""
        ...

    def copy(self, but: str | None = None) -> "Store":
        """A copy, object by object, in another place of the same kind; `but` is left out."""
        ...

    def elsewhere(self) -> "Store":
        """Another place of the same kind, with nothing in it."""
        ...


class LocalStore:
    """A directory behind `file://`."""

    kind = "file"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"file://{root}"

    def settings(self):
        return {"storage": {"url": self.url}}

    def names(self):
        found = []
        for folder, subfolders, files in os.walk(self.root):
            if HOUSEKEEPING in subfolders:
                subfolders.remove(HOUSEKEEPING)
            found += [os.path.relpath(os.path.join(folder, name), self.root) for name in files]
        return sorted(found)

    def size_bytes(self):
        total = 0
        for name in self.names():
            with contextlib.suppress(FileNotFoundError):  # deleted since the directory was read
                total += (self.root / name).stat().st_size
        return total

    def read(self, name):
        return (self.root / name).read_bytes()

    def write(self, name, body):
        (self.root / name).write_bytes(body)

    def delete(self, name):
        (self.root / name).unlink()

    def metadata(self, name):
        return ""

    def elsewhere(self):
        return LocalStore(self.root.with_name(f"{self.root.name}-{uuid.uuid4().hex[:8]}"))

    def copy(self, but=None):
        other = self.elsewhere()
        for name in self.names():
            if name != but:
                target = other.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self.root / name, target)
        return other


class BucketStore:
    """A prefix of a bucket behind `s3://`. Close it at the end."""

    def __init__(self, server: Server, prefix: str = "") -> None:
        self.kind = server.name
        self._server = server
        self._prefix = (prefix or f"volume-{uuid.uuid4().hex[:8]}") + "/"
        self._copies = contextlib.ExitStack()
        self._client = server.client()
        self.url = server.url(self._prefix)

    def settings(self):
        return {
            "storage": {"url": self.url},
            "aws": {
                "endpoint": self._server.endpoint,
                "access_key_id": self._server.access_key_id,
                "secret_access_key": self._server.secret_access_key,
                "default_region": "us-east-1",
                "allow_http": True,
            },
        }

    def names(self):
        return sorted(found["Key"].removeprefix(self._prefix) for found in self._list())

    def size_bytes(self):
        return sum(found["Size"] for found in self._list())

    def _list(self):
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._server.bucket, Prefix=self._prefix)
        return (found for page in pages for found in page.get("Contents", ()))

    def read(self, name):
        with contextlib.closing(self._client.get_object(**self._key(name))["Body"]) as body:
            return body.read()

    def write(self, name, body):
        self._client.put_object(**self._key(name), Body=body)

    def delete(self, name):
        self._client.delete_object(**self._key(name))

    def metadata(self, name):
        return repr(self._client.head_object(**self._key(name)))

    def elsewhere(self):
        other = BucketStore(self._server)
        self._copies.callback(other.close)
        return other

    def copy(self, but=None):
        other = self.elsewhere()
        for name in self.names():
            if name != but:
                self._client.copy_object(**other._key(name), CopySource=self._key(name))
        return other

    def close(self):
        self._copies.close()
        self._client.close()

    def _key(self, name):
        return {"Bucket": self._server.bucket, "Key": self._prefix + name}


def on_stores(*kinds: str) -> pytest.MarkDecorator:
    """Runs a test that takes `store` on each of these kinds, all of them if none is named.

    moto stands in for MinIO where that is missing; where both are there, its share is left to the slow tests.
    """
    marks = {"minio": [pytest.mark.s3], "moto": [] if missing_minio() else [pytest.mark.slow]}
    params = [pytest.param(kind, marks=marks.get(kind, [])) for kind in kinds or KINDS]
    return pytest.mark.parametrize("store", params, indirect=True)
