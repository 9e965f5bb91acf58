"""What a job changes is told by key; where and how a run logs, saves and starts is no change of it."""

from dataclasses import replace

from skills_pipe.training.checkpoint.changes import changes_since, in_one_line, settings_of
from skills_pipe.training.checkpoint.resume import latest_whole
from tests.training.checkpoint.runs import RUN, save_steps


def test_a_change_has_its_value_before_and_now(tmp_path):
    run = replace(RUN, config_yaml="policy: {lr: 1.0, kept: [1, 2]}\ndata: {train: [{path: a}]}\n")
    save_steps(tmp_path, 1, run=run)
    found = latest_whole(tmp_path)
    other = replace(
        run,
        config_yaml="policy: {lr: 2.0, kept: [1, 2], added: 3}\ndata: {train: [{path: a}, {path: b}]}\n",
        model_fingerprint="model-b",
    )
    assert changes_since(found, other) == {
        "base_model": {"before": "model-a", "now": "model-b"},
        "policy.lr": {"before": 1.0, "now": 2.0},
        "policy.added": {"before": None, "now": 3},
        "data.train.1": {"before": None, "now": "b"},
    }
    assert changes_since(found, run) == {}, "the control"


def test_a_note_names_the_first_keys_and_counts_the_others():
    changes = {f"sft.key_{number}": {"before": None, "now": True} for number in range(8)}
    line = in_one_line(changes | {"data": {"before": "a", "now": "b"}}, since="step_3")
    assert line.startswith("changed since step_3, and going on with it: sft.key_0 null -> true; sft.key_1")
    assert line.endswith("sft.key_7 null -> true")
    longer = in_one_line(changes | {"policy.lr": {"before": 1.0, "now": 2.0}}, since="step_3")
    assert longer == f"{line}; and 1 more, in lineage.json"
    prompt = {"data.default.system_prompt": {"before": None, "now": "a word " * 50}}
    assert in_one_line(prompt, since="step_3").endswith(" a word a...")
    assert in_one_line({"data": {"before": "a", "now": "b"}}, since="step_3") is None


def test_an_argument_that_a_class_is_not_given_is_at_the_default_of_the_class(tmp_path):
    def named(optimizer, scheduler="null"):
        return replace(RUN, config_yaml=f"policy: {{optimizer: {optimizer}, scheduler: {scheduler}}}\n")

    adamw = named("{name: torch.optim.AdamW, kwargs: {lr: 0.1, betas: [0.9, 0.98], fused: true}}")
    adam = named("{name: torch.optim.Adam, kwargs: {lr: null, fused: null}}")
    save_steps(tmp_path / "adamw", 1, run=adamw)
    save_steps(tmp_path / "adam", 1, run=adam)
    there = changes_since(latest_whole(tmp_path / "adamw"), adam)
    assert {key.rpartition(".")[2]: value["now"] for key, value in there.items()} == {
        "name": "torch.optim.Adam",
        "lr": "the default of Adam",
        "betas": "the default of Adam",
        "fused": None,
    }, "null is passed on, but for the rate"
    line = in_one_line(there, since="step_1")
    assert "policy.optimizer.kwargs.betas [0.9, 0.98] -> the default of Adam" in line
    back = changes_since(latest_whole(tmp_path / "adam"), adamw)
    assert back["policy.optimizer.kwargs.betas"] == {"before": "the default of Adam", "now": [0.9, 0.98]}

    scheduled = named("null", "[{name: a.B, kwargs: {T_max: 1}}, {milestones: []}]")
    save_steps(tmp_path / "scheduled", 1, run=scheduled)
    other = named("null", "[{name: a.C, kwargs: {step_size: 1}}, {milestones: []}]")
    changes = changes_since(latest_whole(tmp_path / "scheduled"), other)
    assert changes["policy.scheduler.0.kwargs.T_max"] == {"before": 1, "now": "the default of C"}
    assert changes["policy.scheduler.0.kwargs.step_size"] == {"before": "the default of B", "now": 1}
    gone = changes_since(latest_whole(tmp_path / "adamw"), named("null"))
    assert gone["policy.optimizer.kwargs.betas"]["now"] is None, "there is no class"


def test_a_data_set_that_is_added_or_left_out_is_one_change(tmp_path):
    run = replace(RUN, config_yaml="data: {train: [{data_path: a, weight: 2.0}], validation: []}\n")
    save_steps(tmp_path, 1, run=run)
    validated = "validation: [{data_path: v, seed: 1}]"
    other = replace(run, config_yaml=f"data: {{train: [{{data_path: a, weight: 1.0}}], {validated}}}\n")
    changes = changes_since(latest_whole(tmp_path), other)
    assert changes == {
        "data.train.0.weight": {"before": 2.0, "now": 1.0},
        "data.validation.0": {"before": None, "now": "v"},
    }
    save_steps(tmp_path / "later", 1, run=other)
    back = changes_since(latest_whole(tmp_path / "later"), run)
    assert back["data.validation.0"] == {"before": "v", "now": None}


def test_where_a_run_logs_saves_and_computes_is_no_change():
    text = "logger: {log_dir: a}\ncheckpointing: {save_period: 1}\ncluster: {num_nodes: 2}\ndata: {num_workers: 2}\n"
    assert settings_of(text) == {}


def test_passwords_in_addresses_are_not_kept():
    assert settings_of("data: {train: 's3://key:secret@bucket/a'}") == {"data.train": "s3://***@bucket/a"}


def test_of_variables_the_names_alone_are_kept():
    text = "policy: {dtensor_cfg: {env_vars: {TOKEN: s3cret}}}"
    assert settings_of(text) == {"policy.dtensor_cfg.env_vars": ["TOKEN"]}


def test_of_what_is_switched_off_no_key_is_told():
    text = "policy: {megatron_cfg: {enabled: %s, clip_grad: 1.0}}"
    assert settings_of(text % "false") == {"policy.megatron_cfg.enabled": False}
    assert settings_of(text % "true") == {"policy.megatron_cfg.enabled": True, "policy.megatron_cfg.clip_grad": 1.0}
