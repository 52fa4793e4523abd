"""Sealing in bulk: many chunks into frames at a time, away from the thread that serves requests (0017).

    sealer ─▶ work, in threads
      └─────▶ process ─▶ (arena, messages) ─▶ child ─▶ transform.frame

`work` and `messages` are pure, and so is `arena` but for the memory itself. Who seals decides nothing: a batch is lost
with its process, and sealed again by a thread.
"""
