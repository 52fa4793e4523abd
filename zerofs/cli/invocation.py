"""The two ways in which mount(8) calls us, turned into the arguments of `zerofs mount`. Pure.

    mount.fuse.zerofs SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]     a mount helper, see mount(8)
    zerofs SOURCE MOUNTPOINT [-o OPTIONS]                                                 through mount.fuse3(8)

SOURCE is the configuration file, so a line of fstab reads: FILE MOUNTPOINT fuse.zerofs OPTIONS 0 0.
"""

import os
from collections.abc import Collection, Sequence

from zerofs.errors import ConfigError


def mount_arguments(argv: Sequence[str], commands: Collection[str]) -> list[str] | None:
    """Arguments for our command line when mount(8) is the caller; None for an ordinary command line.

    Raises:
        ConfigError: the helper's arguments are not those that mount(8) gives.
    """
    if os.path.basename(argv[0]).startswith("mount."):
        return _helper(argv[1:])
    arguments = argv[1:]
    if len(arguments) < 2 or arguments[0].startswith("-") or arguments[0] in commands:
        return None
    # A mistyped command is not taken for a file: a configuration is named by a path, or ends in .toml.
    return _helper(arguments) if "/" in arguments[0] or arguments[0].endswith(".toml") else None


def _helper(arguments: Sequence[str]) -> list[str]:
    positional: list[str] = []
    options: list[str] = []
    remaining = list(arguments)
    fake = verbose = False
    while remaining:
        argument = remaining.pop(0)
        if argument in ("-o", "-t", "-N"):
            if not remaining:
                raise ConfigError(f"the mount helper's option {argument} needs a value")
            value = remaining.pop(0)
            if argument == "-o":
                options += ["-o", value]
            elif argument == "-N":
                raise ConfigError("mounting into another namespace (-N) is not supported")
        elif argument.startswith("-o"):
            options += ["-o", argument[2:]]
        elif len(argument) > 1 and argument[0] == "-" and set(argument[1:]) <= set("sfnv"):
            fake = fake or "f" in argument
            verbose = verbose or "v" in argument
        elif argument.startswith("-"):
            raise ConfigError(f"the mount helper has no option {argument}")
        else:
            positional.append(argument)
    if len(positional) != 2:
        raise ConfigError("the mount helper takes SOURCE (a configuration file) and MOUNTPOINT")
    source, mountpoint = positional
    # A `config=` among the options wins over SOURCE, which then is only a name.
    return [
        *(["--verbose"] if verbose else []),
        "mount",
        "--quiet",
        *(["--fake"] if fake else []),
        "--config",
        source,
        *options,
        "--",
        mountpoint,
    ]
