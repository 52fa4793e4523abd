"""Compaction: runs of meta rows are merged by size, by a worker that owns nothing (decision 0008).

    picker ─▶ job ─▶ worker ─▶ (pipe, child) ─▶ merge: plan ─▶ source ─▶ hiding ─▶ output ─▶ result

`picker`, `plan`, `cuts`, `hiding`, `job` and `messages` are pure. The writer decides with `picker`, mints the names,
hands a `job` to a `worker` and commits the result; everything else here knows neither manifest nor WAL.
"""
