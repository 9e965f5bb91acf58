"""Real trainings that are disturbed: whatever happens, the result has the bits of one undisturbed run."""

from __future__ import annotations

import os
import signal

import pytest

from tests.pipeline.chaos.scenes import ask, ended, processes_of, words
from tests.pipeline.chaos.training import STEPS, last_step, prepare, reaches, train, weights

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_a_chain_of_four_that_is_cut_short_three_times_has_the_bits_of_one_long_run(slurm, tmp_path, monkeypatch):
    """Short of time, then kill -9 of a rank, then short of time again; no job is left."""
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path)
    chain = train(tmp_path, "chain", jobs=4)
    output, ids = tmp_path / "chain", chain.job_ids
    reaches(output, 10)
    ask("scancel", "--batch", "--signal=USR1", ids["chain-sft-0"])
    reaches(output, 20)
    os.kill(processes_of(ids["chain-sft-1"], "skills_pipe.training.sft")[-1], signal.SIGKILL)
    reaches(output, 40)
    ask("scancel", "--batch", "--signal=USR1", ids["chain-sft-2"])
    assert words(ended(chain)) == ["continued", "failed", "continued", "succeeded", "succeeded"]
    long = train(tmp_path, "long", jobs=1)
    assert words(ended(long)) == ["succeeded", "succeeded"]
    assert weights(output) == weights(tmp_path / "long") != {}
    assert last_step(output) == STEPS
