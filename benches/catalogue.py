"""Which systems there are, and how those that were asked for come to stand side by side."""

import dataclasses

from benches.latency import far_away
from benches.mounts import FailedError, UnavailableError
from benches.peers import Cryfs, Gocryptfs, Juicefs, JuicefsOnS3, Rclone, S3fs
from benches.systems import (
    NullFilesystem,
    NullThroughLibfuse,
    NullWithoutStayAwake,
    NullWithoutWriteback,
    PlainDirectory,
    Zerofs,
    ZerofsOnS3,
    ZerofsThroughLibfuse,
)
from tests.servers import minio_server, missing_minio

LOCAL = (
    *(PlainDirectory, NullFilesystem, NullThroughLibfuse, NullWithoutStayAwake, NullWithoutWriteback),
    *(Zerofs, ZerofsThroughLibfuse, Gocryptfs, Cryfs, Juicefs),
)
ON_S3 = (ZerofsOnS3, S3fs, Rclone, JuicefsOnS3)
NAMES = tuple(kind.name for kind in (*LOCAL, *ON_S3))
ON_REQUEST = tuple(
    kind.name for kind in (NullThroughLibfuse, NullWithoutStayAwake, NullWithoutWriteback, ZerofsThroughLibfuse)
)
"""Measured only when named."""


def start_systems(arguments, base, stack, missing):
    """Those systems that were asked for and can run here, mounted. The others, with the reason, go to `missing`."""
    server = None
    wanted_on_s3 = [kind for kind in ON_S3 if kind.name in arguments.chosen]
    if wanted_on_s3:
        if reason := missing_minio():
            missing |= {kind.name: reason for kind in wanted_on_s3}
            wanted_on_s3 = []
        else:
            server = stack.enter_context(minio_server(base / "minio"))
            if arguments.far:
                server = dataclasses.replace(server, endpoint=stack.enter_context(far_away(server.endpoint)))
    wanted = [kind(base) for kind in LOCAL if kind.name in arguments.chosen]
    wanted += [kind(base, server) for kind in wanted_on_s3]
    systems = []
    for system in wanted:
        stack.callback(system.remove)
        try:
            system.prepare()
            system.start()
        except (UnavailableError, FailedError) as error:
            missing[system.name] = str(error)
        else:
            systems.append(system)
    return systems
