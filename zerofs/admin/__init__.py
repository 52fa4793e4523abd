"""What an operator does with a running mount: ask it, flush it, stop it, find it, unmount it.

`control` is the conversation with the process that serves a mount, `registry` knows which mounts this host has,
`mounts` talks to the kernel. The room serves no filesystem requests and knows nothing of the command line.
"""
