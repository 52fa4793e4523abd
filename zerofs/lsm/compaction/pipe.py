"""One end of the conversation between a writer and its worker: whole messages over a pair of streams."""

import trio

from zerofs.lsm.compaction.framing import Unframer, frame

_RECEIVE_BYTES = 65536


class Pipe:
    """Sends and receives payloads. One task may send while another receives."""

    def __init__(self, output: trio.abc.SendStream, incoming: trio.abc.ReceiveStream) -> None:
        self._output = output
        self._input = incoming
        self._unframer = Unframer()

    async def send(self, payload: bytes) -> None:
        """Send one payload. Raises trio.BrokenResourceError when nobody is at the other end, MessageError."""
        await self._output.send_all(frame(payload))

    async def receive(self) -> bytes | None:
        """The next payload; None when the other end is closed. Raises MessageError, trio.BrokenResourceError."""
        while (payload := self._unframer.take()) is None:
            data = await self._input.receive_some(_RECEIVE_BYTES)
            if not data:
                self._unframer.end()
                return None
            self._unframer.feed(data)
        return payload

    async def aclose(self) -> None:
        """Close both streams. Idempotent."""
        await self._output.aclose()
        await self._input.aclose()
