"""Which checkpoint is the best is settled before the queue, or that none of them could be."""

import pytest

from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.sft import plan
from skills_pipe.pipeline.commands.sft.checks.best import check_best
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.options.declaration import build

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
EVERY_STEP = ("++sft.val_period=2", "++checkpointing.save_period=1", "++checkpointing.keep_top_k=null")


def told(*extras, **options):
    made = build(
        SftOptions,
        {"output_dir": "out", "hf_model": "org/model", "training_data": "rows.jsonl", "conversion_step": "best"}
        | options,
    )
    request = Request(options=made, extras=extras, cluster=HERE, plan=plan(made, extras, HERE))
    return [finding.what for finding in check_best(request).findings]


@pytest.mark.parametrize(
    ("extras", "options", "message"),
    [
        ((), {}, "no checkpoint has val:val_loss"),
        (("++checkpointing.metric_name=null",), {"validation_data": "v.jsonl"}, "metric_name is null"),
        (("++sft.val_at_end=false",), {"validation_data": "v.jsonl"}, "nothing will be validated while it trains"),
    ],
)
def test_without_a_metric_nothing_is_the_best(extras, options, message):
    assert [message in what for what in told(*extras, **options)] == [True]


@pytest.mark.parametrize(
    ("extras", "options"),
    [
        (("++sft.val_period=50",), {"validation_data": "v.jsonl"}),
        # The last step is both, without being asked for.
        (("++sft.val_at_end=false", "++sft.val_period=5", "++sft.max_num_steps=5"), {"validation_data": "v.jsonl"}),
        # The first step that is saved off a validation would come after the end.
        (("++sft.max_num_steps=100",), {"validation_data": "v.jsonl"}),
        (("++sft.max_num_steps=200", "++sft.val_period=50"), {"validation_data": "v.jsonl"}),
        (("++checkpointing.metric_name=train:loss",), {}),
        ((), {"conversion_step": "last"}),
        ((), {"num_training_jobs": 0}),
    ],
)
def test_where_there_is_one_nothing_is_wrong(extras, options):
    assert told(*extras, **options) == []


@pytest.mark.parametrize(
    ("extras", "options", "moments"),
    [
        ((), {}, "every 100 steps and validated at the end only"),
        (("++sft.max_num_steps=101",), {}, "every 100 steps and validated at the end only"),
        (("++sft.val_period=40",), {}, "every 100 steps and validated every 40 steps"),
        (("++sft.val_period=40",), {"conversion_step": "last"}, "every 100 steps and validated every 40 steps"),
        (
            (*EVERY_STEP, "++sft.early_stopping.patience=2"),
            {"conversion_step": "last"},
            "every step and validated every 2 steps",
        ),
    ],
)
def test_checkpoints_between_validations_are_told(extras, options, moments):
    (found,) = told(*extras, **({"validation_data": "v.jsonl"} | options))
    assert moments in found and "are never the best" in found


@pytest.mark.parametrize("extras", [(), EVERY_STEP])
def test_who_ranks_nothing_is_not_told(extras):
    assert told(*extras, validation_data="v.jsonl", conversion_step="last") == []
