"""The kernel's FUSE protocol spoken directly: codec, negotiation, mounting, and a server over `/dev/fuse`.

Not the place where files are decided upon: requests become calls of `zerofs.fs`, as with every other frontend.
"""
