"""Percentiles, and that every phase has its work."""

from benches.stalls import PHASES, WORK, forced_stat, percentile


def test_percentiles_are_samples():
    samples = [*range(1000, 0, -1)]
    assert percentile(samples, 0.5) == 501
    assert percentile(samples, 0.999) == 1000
    assert percentile([7], 0.999) == 7


def test_each_phase_has_its_work_and_its_proof():
    assert {phase.workload for phase in PHASES} == set(WORK)
    assert all(phase.proofs for phase in PHASES)


def test_a_forced_stat_takes_time(tmp_path):
    assert forced_stat(tmp_path) > 0
