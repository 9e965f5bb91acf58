"""Keys of a cluster configuration for sites with odd rules about dependencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skills_pipe.errors import ClusterConfigError
from skills_pipe.pipeline.cluster.config import ChainKind
from skills_pipe.pipeline.cluster.load import load_cluster
from skills_pipe.pipeline.plan import EdgeKind, Segment, chain, gate
from tests.pipeline.programs import job, shell

SLURM = {"executor": "slurm", "job_dir": "/jobs"}


def test_without_them_there_are_segments_and_slurm_cancels_what_can_never_start():
    config = load_cluster(SLURM)
    assert (config.chain, config.kill_on_invalid_dep) == (ChainKind.SEGMENTS, True)


def test_both_can_be_set():
    config = load_cluster(SLURM | {"chain": "requeue", "kill_on_invalid_dep": False})
    assert (config.chain, config.kill_on_invalid_dep) == (ChainKind.REQUEUE, False)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("chain", "requeues", "chain must be one of segments, requeue, not 'requeues', did you mean 'requeue'"),
        ("kill_on_invalid_dep", "no way", "kill_on_invalid_dep must be true or false, not 'no way'"),
    ],
)
def test_other_values_are_refused(key, value, told):
    with pytest.raises(ClusterConfigError, match=told):
        load_cluster(SLURM | {key: value})


def test_a_chain_of_one_job_that_requeues_itself_has_one_segment_and_a_gate():
    template = replace(job("sft", shell("true"), Path("/out")), stage="sft")
    (only,) = chain(template, count=4, requeue=True)
    assert only.segment == Segment(index=0, count=4, requeue=True) and only.edges == ()
    assert [(edge.upstream, edge.kind) for edge in gate([only])] == [("sft-0", EdgeKind.ANY_SUCCEEDED)]
