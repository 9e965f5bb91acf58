"""Keys of the trainer that are wrong, told before the queue."""

import pytest

from skills_pipe.pipeline.checks.finding import errors_in
from tests.pipeline.commands.sft.checks.findings import texts, training_findings

pytestmark = pytest.mark.usefixtures("wandb_key")


def test_good_keys_have_no_findings():
    assert training_findings("++sft.max_num_steps=100", "++policy.train_global_batch_size=8") == []


def test_a_chain_without_checkpoints_is_refused():
    assert "nothing of the training stays" in texts(errors_in(training_findings("++checkpointing.enabled=false")))
    assert training_findings("++checkpointing.enabled=true") == []


def test_keys_of_the_other_backend_are_told_before_the_queue():
    (told,) = training_findings("++policy.megatron_cfg.optimizer.lr=5e-5", "++policy.lr=1e-5")
    assert not errors_in([told])
    assert "policy.megatron_cfg.optimizer.lr: the fsdp backend does not read it" in told.what
    # The control: the switch between the backends, which the launcher sets itself, is read.
    assert training_findings("++policy.megatron_cfg.enabled=false") == []


def test_unknown_keys_are_told_with_the_nearest_one():
    found = texts(training_findings("++sft.max_num_step=100"))
    assert "did you mean 'sft.max_num_steps'" in found


def test_a_problem_with_a_key_of_the_launcher_names_the_flag():
    found = training_findings(backend="megatron")
    assert [finding.where for finding in found] == ["--backend"]
    typed = training_findings("++policy.megatron_cfg.enabled=true", "++policy.dtensor_cfg.enabled=false")
    assert "++policy.megatron_cfg.enabled=true" in (typed[0].where or "")


def test_all_wrong_keys_are_told_at_once():
    assert len(training_findings("++sft.max_num_step=100", "++policy.lrr=1", "++sft.seed=many")) == 3


def test_keys_that_contradict_a_flag_are_told():
    found = training_findings("++checkpointing.checkpoint_dir=/elsewhere", "++cluster.num_nodes=4")
    assert [str(finding) for finding in found] == [
        "error: checkpointing.checkpoint_dir follows from --output_dir (++checkpointing.checkpoint_dir): "
        "give --output_dir instead",
        "error: cluster.num_nodes follows from --num_nodes (++cluster.num_nodes): give --num_nodes instead",
    ]


def test_a_key_beside_the_flag_that_stands_for_it_is_told():
    found = training_findings("++data.train_data_path=/data/other.jsonl", "++policy.model_name=org/model")
    assert texts(found) == (
        "warning: --training_data has no effect: ++data.train_data_path=/data/other.jsonl counts "
        "(++data.train_data_path): leave one of them out"
    )


def test_a_run_without_end_is_told():
    found = texts(training_findings("++sft.max_num_steps=100000000", "++sft.max_num_epochs=100000000"))
    assert "bounds the run" in found
