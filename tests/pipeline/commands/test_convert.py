"""``ns convert``: one conversion, or several and their average."""

import json

import pytest

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.artifacts.names import ENV_IDENTITY
from skills_pipe.errors import OptionError
from skills_pipe.pipeline.checks.request import Request
from skills_pipe.pipeline.cli import convert, main
from skills_pipe.pipeline.cluster.config import ClusterConfig
from skills_pipe.pipeline.commands.convert import ConvertOptions, plan
from skills_pipe.pipeline.commands.release import check_token
from skills_pipe.pipeline.options.declaration import build
from skills_pipe.pipeline.plan import Launch, Plan

HERE = ClusterConfig(name="local", job_dir="/jobs", working_dir="/home/me")


def planned(**options: object) -> Plan:
    return plan(build(ConvertOptions, {"input_model": "run", "output_model": "model", **options}), (), HERE)


def test_the_last_checkpoint_becomes_a_model():
    made = planned()
    assert made.jobs[0].command.argv == (
        "python",
        "-m",
        "skills_pipe.training.checkpoint.export",
        "--training_folder=/home/me/run",
        "--hf_ckpt_path=/home/me/model",
        "--step=last",
    )
    assert made.stages[0].inputs == ("/home/me/run/checkpoints",)
    assert made.jobs[0].resources.num_gpus == 0


def test_steps_are_averaged():
    made = planned(average_steps="10,20", expname="c")
    assert [job.name for job in made.jobs] == ["c-convert-ckpt-step_10", "c-convert-ckpt-step_20", "c-average-ckpt"]
    assert "--output=/home/me/model" in made.jobs[-1].command.argv


def test_one_step_or_an_average_and_not_both():
    with pytest.raises(OptionError, match="exclude each other"):
        planned(average_steps="10,20", conversion_step="10")


def test_adapters_alone_are_another_model():
    alone, merged = planned(adapter_only=True), planned()
    assert "--adapter_only" in alone.jobs[0].command.argv
    assert "--adapter_only" not in merged.jobs[0].command.argv
    assert alone.stages[0].options != merged.stages[0].options
    with pytest.raises(OptionError, match="exclude each other"):
        planned(adapter_only=True, average_steps="10,20")


def argv_of(made: Plan, name: str) -> tuple[str, ...]:
    return next(job.command.argv for job in made.jobs if job.stage == name)


def test_the_best_checkpoint_may_be_asked_for():
    assert "--step=best" in planned(conversion_step="best").jobs[0].command.argv
    with pytest.raises(OptionError, match="'good' is not a step"):
        planned(conversion_step="good")


def test_a_model_is_given_away_only_after_it_was_validated():
    made = planned(validate=True, archive="out/a.nemo", push_to_hub="org/name", expname="c")
    edges = {job.stage: [edge.upstream for edge in job.edges] for job in made.jobs}
    assert edges == {
        "convert-final-ckpt": [],
        "validate-model": ["c-convert-final-ckpt"],
        "pack-archive": ["c-validate-model"],
        "push-to-hub": ["c-validate-model"],
    }
    assert {stage.name: stage.output for stage in made.stages} == {
        "convert-final-ckpt": "/home/me/model",
        "validate-model": "/home/me/model.validation.json",
        "pack-archive": "/home/me/out/a.nemo",
        "push-to-hub": "/home/me/model.pushed.json",
    }


def test_without_validation_it_follows_the_conversion_or_the_average():
    made = planned(average_steps="10,20", push_to_hub="org/name", expname="c")
    assert [edge.upstream for edge in made.jobs[-1].edges] == ["c-average-ckpt"]
    assert argv_of(made, "push-to-hub")[3:] == (
        "--model=/home/me/model",
        "--repo=org/name",
        "--report=/home/me/model.pushed.json",
    )


def test_another_repository_is_another_stage_and_visibility_is_chosen():
    first, second = (planned(push_to_hub=repo).stages[-1].options for repo in ("org/a", "org/b"))
    assert first != second
    assert argv_of(planned(push_to_hub="org/a", hub_public=True), "push-to-hub")[-1] == "--public"


def test_gpus_are_for_the_validation_alone():
    made = planned(validate=True, num_gpus=2)
    assert [job.resources.num_gpus for job in made.jobs] == [0, 2]
    assert [job.command.launch for job in made.jobs] == [Launch.ONCE, Launch.PER_GPU]


def test_an_archive_becomes_a_model():
    made = planned(input_model="a.nemo", archive="b.nemo")
    assert made.stages[0].inputs == ("/home/me/a.nemo",)
    assert argv_of(made, "unpack-archive")[3:] == ("--archive=/home/me/a.nemo", "--output=/home/me/model")
    assert made.jobs[1].edges[0].upstream == made.jobs[0].name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_model": "a.nemo", "conversion_step": "4"}, "an archive holds one model: --conversion_step"),
        ({"input_model": "a.nemo", "adapter_only": True}, "--adapter_only has no meaning"),
        ({"validate": True, "average_steps": "1,2"}, "--validate and --average_steps exclude"),
        ({"archive": "a.nemo", "adapter_only": True}, "--adapter_only and --archive exclude"),
        ({"validate": True, "adapter_only": True}, "--adapter_only and --validate exclude"),
        ({"num_gpus": 2}, "--num_gpus needs --validate"),
        ({"validate": True, "num_gpus": -1}, "--num_gpus is -1"),
        ({"hub_public": True}, "--hub_public needs --push_to_hub"),
        ({"push_to_hub": "a/b/c"}, "'a/b/c' is no repository"),
        ({"push_to_hub": "my org/x"}, "is no repository"),
        ({"archive": "model.tar"}, "does not end in .nemo"),
    ],
)
def test_what_does_not_go_together_is_refused(options, message):
    with pytest.raises(OptionError, match=message):
        planned(**options)


@pytest.mark.parametrize("output", ["run", "./run/", "run/checkpoints", "run/checkpoints/step_4", ".", "HERE/run"])
def test_what_a_model_is_made_of_is_never_its_output(output):
    """With --on_change=restart it would be set aside."""
    with pytest.raises(OptionError, match="is, or holds, what the model is made of"):
        planned(input_model="run", output_model=output.replace("HERE", str(HERE.working_dir)))
    assert planned(input_model="run", output_model="run/averages/a")
    assert planned(input_model="run", output_model="run2")


def test_pushing_without_a_token_is_told_before_the_queue(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_TOKEN_PATH", raising=False)

    def findings(**options):
        request = Request(
            options=build(ConvertOptions, {"input_model": "run", "output_model": "model", **options}),
            extras=(),
            cluster=HERE,
            plan=planned(**options),
        )
        return [finding.what for finding in check_token(request).findings]

    assert findings() == []
    assert findings(push_to_hub="org/name") == ["there is no token for the Hugging Face hub"]
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert findings(push_to_hub="org/name") == []
    assert "hf_secret" not in str(planned(push_to_hub="org/name").to_json())


def test_checkpoints_that_are_not_there_are_told_with_the_option_that_names_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "--input_model=nosuch", "--output_model=model"]) == 2
    told = capsys.readouterr().err
    assert "nosuch/checkpoints, which does not exist (--input_model)" in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("given", "fix"),
    [
        ("run/checkpoints", "give the folder above: run\n"),
        ("run/checkpoints/", "give the folder above: run\n"),
        ("run/checkpoints/step_2", "give the folder above: run, with --conversion_step=2\n"),
    ],
)
def test_a_folder_inside_of_a_training_is_told_with_the_one_that_is_meant(given, fix, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run/checkpoints/step_2").mkdir(parents=True)
    words = ["convert", "--output_model=model", "--dry_run"]
    assert main([*words, f"--input_model={given}"]) == 2
    told = capsys.readouterr().err
    assert f"{given.rstrip('/')} holds" in told and f"(--input_model): {fix}" in told
    assert "does not exist" not in told, "it is told once"
    # The controls: the folder above, and a training in a folder that is called so.
    assert main([*words, "--input_model=run"]) == 0
    (tmp_path / "run/checkpoints/checkpoints/step_2").mkdir(parents=True)
    assert main([*words, "--input_model=run/checkpoints"]) == 0
    assert "folder above" not in capsys.readouterr().err


def test_steps_that_are_not_there_are_told_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for step in (2, 10):
        (tmp_path / f"run/checkpoints/step_{step}").mkdir(parents=True)
    words = ["convert", "--input_model=run", "--output_model=model", "--dry_run"]
    assert main([*words, "--conversion_step=5"]) == 2
    assert "no checkpoint of step 5" in (told := capsys.readouterr().err) and "choose among 2, 10" in told
    assert main([*words, "--average_steps=2,5,6"]) == 2
    told = capsys.readouterr().err
    assert "step 5" in told and "step 6" in told and "(--average_steps)" in told
    # The control: one that is there.
    assert main([*words, "--conversion_step=10"]) == 0
    assert "no checkpoint" not in capsys.readouterr().err


def test_adapters_of_a_training_of_all_weights_are_told_before_anything_runs(training, capsys):
    words = ["convert", "--input_model=run", "--output_model=model", "--adapter_only", "--dry_run"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "trained all weights, and no adapters (--adapter_only): leave it out" in told
    # The control: its last checkpoint holds adapters.
    (training / "checkpoints/step_10/policy").mkdir(parents=True)
    (training / "checkpoints/step_10/policy/adapter_config.json").write_text("{}")
    assert main(words) == 0


def make(output, identity, monkeypatch):
    """What a job would leave."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "config.json").write_text("{}")
    record = output.parent / "identity.json"
    record.write_text(json.dumps(identity.to_json()))
    with monkeypatch.context() as context:
        context.setenv(ENV_IDENTITY, str(record))
        manifests.seal(output, kind="hf_model")


@pytest.fixture
def training(tmp_path, monkeypatch):
    """A training of which steps 2, 5 and 10 were saved."""
    monkeypatch.chdir(tmp_path)
    for step in (2, 5, 10):
        (tmp_path / f"run/checkpoints/step_{step}").mkdir(parents=True)
    return tmp_path / "run"


WORDS = ["convert", "--input_model=run", "--output_model=model", "--dry_run"]


def test_a_model_of_another_step_stands_in_for_no_checkpoint(training, monkeypatch, capsys):
    """That the step is missing was not told where the output was there, nor that this was made of another step."""
    seen = convert(input_model="run", output_model="model", conversion_step="5", dry_run=True)
    make(training.parent / "model", seen.identities["convert-final-ckpt"], monkeypatch)
    (training / "checkpoints/step_5").rmdir()
    capsys.readouterr()
    assert main([*WORDS, "--conversion_step=7"]) == 2
    told = capsys.readouterr().err
    assert "no checkpoint of step 7" in told
    assert '--conversion_step: "5" -> "7"' in told
    assert main([*WORDS, "--conversion_step=5", "--rerun"]) == 2
    assert "no checkpoint of step 5" in capsys.readouterr().err


def test_models_may_outlive_the_checkpoints_that_they_were_made_of(training, monkeypatch, capsys):
    seen = convert(input_model="run", output_model="model", average_steps="2,5", dry_run=True)
    make(training / "hf_model_step_5", seen.identities["convert-ckpt-step_5"], monkeypatch)
    (training / "checkpoints/step_5").rmdir()
    capsys.readouterr()
    assert main([*WORDS, "--average_steps=2,5"]) == 0
    assert "convert-ckpt-step_5  skip" in capsys.readouterr().out
