"""The main job on this machine with a tiny model: data, training in two jobs, averaging, evaluation, and again."""

import json
from pathlib import Path

import pytest

from skills_pipe.errors import UserError
from skills_pipe.pipeline.cli import convert, eval, prepare_data, sft_nemo_rl, wrap_arguments
from tests.training.tiny import save_tiny_model

KEYS = (
    "++sft.max_num_steps=6 ++checkpointing.save_period=2 ++checkpointing.stop_after_steps=4 "
    "++policy.train_global_batch_size=4 ++policy.max_total_sequence_length=256 ++policy.precision=float32"
)


def run_pipeline(keys: str = KEYS) -> list[dict[str, str]]:
    """All commands as a user writes them one after the other; what was done with each stage."""
    words = (
        "'++input_files=generations/*.jsonl' ++output_path=sft.jsonl ++prompt_config=generic/math ++tokenizer=./base"
    )
    data = prepare_data(ctx=wrap_arguments(words), expname="data")
    benchmark = prepare_data(ctx=wrap_arguments("arithmetic ++arithmetic.test_count=8 ++arithmetic.train_count=8"))
    training = sft_nemo_rl(
        ctx=wrap_arguments(keys),
        expname="training",
        output_dir="out",
        hf_model="./base",
        training_data="sft.jsonl",
        num_training_jobs=2,
        average_steps="4,6",
        run_after="data",
    )
    evaluation = eval(
        ctx=wrap_arguments("++inference.tokens_to_generate=4"),
        model="./out/final_hf_model",
        server_type="hf",
        output_dir="results",
        benchmarks="arithmetic",
        run_after=[training, benchmark],
    )
    return [dict(run.actions) for run in (data, benchmark, training, evaluation)]


@pytest.mark.slow
def test_from_generations_to_figures_and_nothing_twice(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("NEMO_SKILLS_CONFIG", "NEMO_SKILLS_CONFIG_DIR", "NEMO_SKILLS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    save_tiny_model(tmp_path / "base")
    write_generations(tmp_path / "generations")

    assert {action for actions in run_pipeline() for action in actions.values()} == {"run"}
    told = capfd.readouterr().out
    assert "training-sft-0: continued" in told
    assert "training-sft-1: succeeded" in told
    assert f"model: {tmp_path}/out/final_hf_model (average of 2 steps)" in told.splitlines()
    assert len((tmp_path / "sft.jsonl").read_text().splitlines()) == 24
    assert json.loads((tmp_path / "results" / "eval-results" / "metrics.json").read_text())["arithmetic"]
    assert list((tmp_path / "out" / "final_hf_model").glob("*.safetensors"))
    model = (tmp_path / "out" / "final_hf_model" / "manifest.json").read_bytes()

    again = run_pipeline()
    summary = again[-1].pop("summarize-results")
    assert summary == "run"
    assert {action for actions in again for action in actions.values()} == {"skip"}
    alone = convert(input_model="out", output_model="out/final_hf_model", average_steps="4,6")
    assert dict(alone.actions) == dict.fromkeys(("convert-ckpt-step_4", "convert-ckpt-step_6", "average-ckpt"), "skip")
    assert (tmp_path / "out" / "final_hf_model" / "manifest.json").read_bytes() == model

    with pytest.raises(UserError, match=r'sft\.max_num_steps: "6" -> "8"'):
        run_pipeline(KEYS.replace("max_num_steps=6", "max_num_steps=8"))


def write_generations(folder: Path) -> None:
    """Thirty problems, every fifth one solved wrongly."""
    folder.mkdir()
    rows = (
        {
            "problem": f"What is {number} + 1?",
            "generation": f"It is \\boxed{{{number + 1}}}.",
            "expected_answer": str(number + 1),
            "symbolic_correct": number % 5 != 0,
        }
        for number in range(30)
    )
    (folder / "output-rs0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
