"""The POSIX filesystem above the key/value engine: verbs (`ops`) over nouns (inodes, dentries, chunks, …).

The door is `filesystem.Filesystem`. Frontends and admin come in through it; nothing here knows them, and nothing here
knows blocks, objects or keys of ciphers: those are the engine's.
"""
