"""The guards of the protocol as switches: without one, the search shows what it is for."""

from dataclasses import dataclass, fields


@dataclass(slots=True, frozen=True, kw_only=True)
class Guards:
    """Everything that the protocol relies on. All of them together are the protocol."""

    # --- taking over: the five of decision 0003 ---

    fences_kept: bool = True
    """Collection leaves every fence, also below the mark."""
    slot_above_mark: bool = True
    """The WAL slot is compared with the mark of the claimed manifest and, when it is too low, looked for again."""
    epoch_rechecked: bool = True
    """Once the fence is stored, the opener looks for a newer epoch."""
    floor_checked: bool = True
    """A manifest counts as created only when its id is not below the floor, read afterwards."""
    put_id_decides: bool = True
    """A put that was refused or not answered is resolved by reading whose object is there."""

    # --- taking over: what the five rely on ---

    replay_verifies: bool = True
    """A WAL object is replayed only under a token that the manifest knows, behind the object that it names, and not
    under an older epoch than that one's."""
    yields_to_newer: bool = True
    """An opener that finds a newer epoch in the WAL gives up instead of putting its fence behind it."""
    asks_before_blaming: bool = True
    """What is missing or does not verify is called damage only when no newer epoch explains it."""
    sees_deleted_claims: bool = True
    """The look for a newer epoch is not deceived by manifests that were created and deleted meanwhile."""
    floor_before_deletes: bool = True
    """The floor is raised before the first manifest below it is deleted."""
    jump_raises_floor: bool = True
    """Before an opener leaves manifest ids out, it raises the floor above them, so that nobody can use them. Whoever
    claims reads the floor, then the newest manifest, and takes an id that is not below the floor."""
    floor_only_rises: bool = True
    """The floor is replaced conditionally: a collector that slept cannot lower it."""

    # --- collecting: decisions 0004, 0008, 0010, 0011 ---

    chunks_before_wal: bool = True
    """A WAL object is put only when every chunk SST that it names is stored."""
    edits_on_current: bool = True
    """A merge is applied to the version of the moment of its commit, not to the one that it started from."""
    in_flight_kept: bool = True
    """An SST whose name was minted here, and that is in no version in force yet, stays."""
    doubt_keeps_names: bool = True
    """So does one of an edit that was given up before anybody knew whether its manifest is stored."""
    held_until_flush: bool = True
    """A chunk SST that a WAL object above the mark may name stays, also when no memtable row points to it any more."""
    replayed_held: bool = True
    """So does, until the first flush, a chunk SST that a replayed WAL object names."""
    registers_keep: bool = True
    """A chunk SST that a view's registers count as live stays: no tree lists it."""
    checkpoints_are_views: bool = True
    """What a checkpoint's manifest refers to stays."""
    checkpoints_pin: bool = True
    """The manifest that a checkpoint names stays."""
    one_instant: bool = True
    """The version that a pass goes by, and the names that it protects, are of the same instant."""
    listed_before: bool = True
    """What a pass lists, it listed before that instant."""
    read_back: bool = True
    """After that instant the version is found in the store and no other writer's above it, or the pass ends."""
    newer_epoch_ends_pass: bool = True
    """An SST of a later epoch in the listing ends the pass."""

    def without(self, *names: str) -> "Guards":
        """These guards but for the named ones."""
        switches = {field.name: getattr(self, field.name) for field in fields(self)}
        assert switches.keys() >= set(names), names
        return Guards(**{name: on and name not in names for name, on in switches.items()})
