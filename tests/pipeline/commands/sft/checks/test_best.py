"""``--conversion_step=best`` is refused before the queue where no checkpoint could be the best."""

import pytest

from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.sft import plan
from skills_pipe.pipeline.commands.sft.checks.best import check_best
from skills_pipe.pipeline.commands.sft.options import SftOptions
from skills_pipe.pipeline.options.declaration import build

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")


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
    ],
)
def test_without_a_metric_nothing_is_the_best(extras, options, message):
    assert [message in what for what in told(*extras, **options)] == [True]


@pytest.mark.parametrize(
    ("extras", "options"),
    [
        ((), {"validation_data": "v.jsonl"}),
        (("++checkpointing.metric_name=train:loss",), {}),
        ((), {"conversion_step": "last"}),
        ((), {"num_training_jobs": 0}),
    ],
)
def test_where_there_is_one_nothing_is_wrong(extras, options):
    assert told(*extras, **options) == []
