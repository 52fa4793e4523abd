"""The conversation with the process that serves a mount, over a Unix socket that only its user and root may use.

`protocol` is the pure codec, `server` the trio side inside the mount's process, `client` the blocking side for
commands.
"""
