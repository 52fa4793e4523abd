"""The model of taking over: who may write (decisions 0003, 0004, 0010).

A writer is an automaton. A step is one request to the store, together with what its writer does until the next one.
Between two steps of a writer the others may do any number of theirs: that is what a stall is. A writer that steps no
more has crashed, or closed after its last flush.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from zerofs.testing.protocol.guards import Guards
from zerofs.testing.protocol.holding import hold_steps, named
from zerofs.testing.protocol.opening import open_steps
from zerofs.testing.protocol.requests import replay
from zerofs.testing.protocol.volume import Left, Manifest, Phase, Record, Rules, Volume, Writer, arrived, with_writer


@dataclass(slots=True, frozen=True, kw_only=True)
class Takeover:
    """A volume with one manifest and one fence. One of the writers has it open, or, when not `held`, nobody.

    A pass deletes WAL objects and manifests. A fault is a put whose answer is lost; the put may be stored, refused, or
    arrive at any later time. A writer that crashes may begin anew. One that jumps leaves a manifest id out.
    """

    guards: Guards
    writers: int
    held: bool = True
    appends: int = 0
    flushes: int = 0
    passes: int = 0
    faults: int = 0
    crashes: int = 0
    jumps: int = 0
    claim_first: bool = True
    strict: bool = True
    """Also complain about a writer that is wrong about its own manifest, or reports damage where there is none."""

    def start(self) -> Volume:
        """Manifest 1 of epoch 1, and its fence, WAL 1."""
        first = Manifest(manifest_id=1, epoch=1, token=1, mark=0, mark_token=0, trees=0, tokens=1 << 1, line=(1,))
        writers = [Writer()] * self.writers
        if self.held:
            writers[-1] = Writer(phase=Phase.OPEN, base=first, slot=1, follows=1)
        return Volume(
            wal=(Record(epoch=1, token=1, payload=0, follows=0),),
            manifests=(first,),
            floor=0,
            writers=tuple(writers),
            acknowledged=0,
            late=(),
            payloads=0,
            tokens=1,
            left=Left(
                appends=self.appends,
                flushes=self.flushes,
                passes=self.passes,
                faults=self.faults,
                crashes=self.crashes,
                jumps=self.jumps,
            ),
        )

    def steps(self, state: Volume) -> Iterator[tuple[int, str, Volume]]:
        """Every next step of a writer, every crash, every late put that has an effect."""
        rules = Rules(guards=self.guards, claim_first=self.claim_first, jumps=bool(self.jumps))
        for i, writer in enumerate(state.writers):
            if i and writer == state.writers[i - 1]:
                continue
            choose = open_steps if writer.phase < Phase.OPEN else hold_steps
            for what, after in choose(state, i, rules):
                yield i, what, after
            if state.left.crashes and writer.phase != Phase.IDLE:
                left = state.left._replace(crashes=state.left.crashes - 1)
                yield i, "crashes", with_writer(state._replace(left=left), i, Writer())
        for late in state.late:
            object_id, thing = late
            after = arrived(state, object_id, thing)
            if after is not state:
                what = "WAL" if isinstance(thing, Record) else "manifest"
                rest = tuple(other for other in state.late if other is not late)
                yield -1, f"the late put of {what} {object_id} arrives", after._replace(late=rest)

    def complaint(self, state: Volume) -> str:
        """What somebody who opened the volume now would find wrong."""
        newest = state.newest
        payloads, wrong = replay(state, newest, len(state.wal), self.guards)
        if wrong:
            return f"the volume cannot be opened: {wrong}"
        lost = state.acknowledged & ~(newest.trees | payloads)
        if lost:
            return f"payload {named(lost)} was acknowledged and is lost"
        return _mistake(state) if self.strict else ""


def _mistake(state: Volume) -> str:
    """What some writer is wrong about."""
    newest = state.newest
    for writer in state.writers:
        if writer.phase == Phase.BLAMING:
            return "a writer reports damage where there is none"
        base = writer.base
        if base and writer.phase >= Phase.CLAIMED and newest.line[base.manifest_id - 1] != base.token:
            return (
                f"manifest {newest.manifest_id} does not come from manifest {base.manifest_id}, which a writer goes by"
            )
    return ""
