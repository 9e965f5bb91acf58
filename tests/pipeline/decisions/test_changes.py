"""What has changed is told by the names that users write."""

import pytest

from skills_pipe.artifacts.identity import Identity
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands import convert, sft
from skills_pipe.pipeline.decisions.changes import changes_between, checkpoints_still_fit, only_inputs_changed
from skills_pipe.pipeline.options.declaration import build, options_of
from skills_pipe.pipeline.plan import Stage

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")
TRAINING = {"output_dir": "out", "hf_model": "org/model", "training_data": "rows.jsonl"}
CONVERSION = {"input_model": "out", "output_model": "model"}


def identity(stage: Stage, *, inputs=None) -> Identity:
    return Identity.of(options=stage.options, inputs=inputs or {})


def last_stage(command, *extras, **options) -> Stage:
    plan = command.plan(build(command.COMMAND.options, options), extras, HERE)
    return plan.stages[-1]


def test_options_of_a_conversion_are_those_of_the_command():
    before = identity(last_stage(convert, **CONVERSION))
    after = identity(last_stage(convert, **CONVERSION, conversion_step="2", adapter_only=True))
    assert changes_between(before, after) == (
        "--adapter_only: (not set) -> true",
        '--conversion_step: "last" -> "2"',
    )


def test_steps_of_an_average_and_keys_of_the_trainer_keep_their_names():
    one = identity(last_stage(convert, **CONVERSION, average_steps="2,4"))
    other = identity(last_stage(convert, **CONVERSION, average_steps="2,6"))
    assert changes_between(one, other) == ("--average_steps: [2, 4] -> [2, 6]",)
    stages = [
        sft.plan(build(sft.SftOptions, TRAINING | more), extras, HERE).stages[0]
        for more, extras in (({}, ()), ({"backend": "megatron"}, ("++sft.seed=3",)))
    ]
    changes = changes_between(*map(identity, stages))
    assert changes == ('++sft.seed: (not set) -> "3"', '--backend: "fsdp" -> "megatron"')


@pytest.mark.parametrize(
    ("command", "name"), [(convert, "conversion_step"), (convert, "average_steps"), (sft, "backend")]
)
def test_the_names_are_those_of_options(command, name):
    assert f"--{name}" in {option.spelling for option in options_of(command.COMMAND.options)}


def test_inputs_are_called_so_and_hashes_are_short():
    stage = last_stage(convert, **CONVERSION)
    before = identity(stage, inputs={"/model": f"stage:{'e3d8' * 16}", "/r.jsonl": "file:1:2"})
    after = identity(stage, inputs={"/model": f"stage:{'aa11' * 16}", "/r.jsonl": "file:1:3"})
    changes = changes_between(before, after)
    assert changes == (
        'input /model: "stage:e3d8e3d8e3d8" -> "stage:aa11aa11aa11"',
        'input /r.jsonl: "file:1:2" -> "file:1:3"',
    )
    assert only_inputs_changed(changes, ["/r.jsonl", "/model", "/other"])
    assert not only_inputs_changed(changes, ["/model"])
    assert not only_inputs_changed(changes, [])
    assert not only_inputs_changed((), ["/model"])


@pytest.mark.parametrize(
    "key",
    [
        "policy.dtensor_cfg.lora_cfg.dim=4",
        "policy.dtensor_cfg.quantization.load_in_4bit=true",
        "policy.train_global_batch_size=3",
        "policy.dtensor_cfg.lora_cfg={enabled: true}",
    ],
)
def test_who_changes_what_checkpoints_are_made_of_is_not_advised_to_go_on_from_them(key):
    def changes(*extras):
        stages = [sft.plan(build(sft.SftOptions, TRAINING), words, HERE).stages[0] for words in ((), extras)]
        return changes_between(*map(identity, stages))

    assert not checkpoints_still_fit(changes(f"++{key}", "++sft.seed=3"))
    assert checkpoints_still_fit(changes("++sft.seed=3"))
    # The controls: what no checkpoint is made of, and a size of batches that begins with other data.
    assert checkpoints_still_fit(changes("++policy.dtensor_cfg.lora_cfg.dropout=0.1"))
    assert checkpoints_still_fit((*changes("++policy.train_global_batch_size=3"), 'input /r: "1" -> "2"'))
