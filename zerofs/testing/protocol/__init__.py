"""The protocol as a model, searched through every order of steps (decision 0013). Plain tuples: no store, no trio.

Two models keep the number of states small: `takeover` (who may write: claims, fences, replays, the WAL and the
manifests), and `collection` (which SSTs may be deleted: chunk SSTs, flushes, merges, checkpoints).

    python -m zerofs.testing.protocol [guard ...]

prints, for each guard, the shortest way to a broken volume without it. What is not modelled: what rows hold, sizes,
LISTs that lag behind, roll-backs of the bucket, readers.
"""
