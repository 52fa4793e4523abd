"""zerofs.cli.pin: a checkpoint for the time of a command, and nothing of it afterwards."""

import os

import pytest

from zerofs.admin.control.protocol import RemoteError
from zerofs.cli import pin
from zerofs.errors import CheckpointError, FencedError, UnavailableError

DEAD = "fsck-2026-01-01T00:00:00.000Z-4194304"
"""Of a process above every pid that Linux gives."""


class Mounted:
    """A volume with a mount that answers."""

    def __init__(self, *names, error=None):
        self.writers = ("a mount",)
        self.names = list(names)
        self.error = error

    def ask(self, request, arguments):
        assert request == "checkpoint"
        name = arguments["name"]
        if self.error is not None and arguments["action"] == self.error[0]:
            raise self.error[1]
        if arguments["action"] == "create":
            self.names.insert(0, name)
            return {"checkpoints": [{"name": known} for known in self.names]}
        if name not in self.names:
            raise RemoteError("there is no such checkpoint", CheckpointError.exit_code)
        self.names.remove(name)
        return {"checkpoints": [{"name": name}]}


def test_it_is_there_for_the_time_of_the_command():
    volume = Mounted("mine", f"fsck-2026-01-01T00:00:00.000Z-{os.getpid()}", DEAD)
    before = volume.names[:2]
    with pytest.raises(KeyboardInterrupt), pin.pinned(volume, "fsck-") as name:
        assert volume.names == [name, *before], "what a killed command left is gone, what a living one has is not"
        raise KeyboardInterrupt
    assert volume.names == before
    assert pin.is_left_behind(DEAD)
    assert not pin.is_left_behind(name)


def test_without_a_mount_there_is_none():
    volume = Mounted()
    volume.writers = ()
    with pin.pinned(volume, "fsck-") as name:
        assert name is None


def test_a_mount_that_was_shut_out_makes_none():
    volume = Mounted(error=("create", RemoteError("another writer took over", FencedError.exit_code)))
    with pin.pinned(volume, "verify-") as name:
        assert name is None
    volume.error = ("create", RemoteError("there is no answer", UnavailableError.exit_code))
    with pytest.raises(RemoteError), pin.pinned(volume, "verify-"):
        pass


def test_one_that_cannot_be_deleted_is_named(capsys):
    volume = Mounted()
    with pin.pinned(volume, "verify-") as name:
        volume.names.clear()
    assert capsys.readouterr().err == "", "somebody deleted it by hand"
    volume.error = ("delete", RemoteError("there is no answer", UnavailableError.exit_code))
    with pin.pinned(volume, "verify-") as name:
        pass
    assert f"zerofs checkpoint delete {name}" in capsys.readouterr().err
