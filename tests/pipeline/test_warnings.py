"""What a training warns of reaches the one who started it, who may never look into the log of a job."""

import json
import re

import pytest

from skills_pipe.pipeline.cli import main
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl

STOP = "warning: no answer ends with a stop token, so the model will not learn to stop"
LOST = "warning: 2 of 34 documents (5.9%) are longer than the limit of 160 tokens and left out"
UNUSED = "warning: rows of rows have an 'instruction', which is not trained on"


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
    """``ns nemo_rl sft`` with these rows, a chain of two jobs of one step each; what a user sees of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLS_PIPE_JOB_DIR", str(tmp_path / "records"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("NEMO_SKILLS_CONFIG", raising=False)
    save_tiny_model(tmp_path / "base")

    def call(rows, *keys: str) -> str:
        write_jsonl(tmp_path / "rows.jsonl", rows)
        words = ["nemo_rl", "sft", "--expname=sft", "--output_dir=out", "--hf_model=./base", "--num_training_jobs=2"]
        words += ["--training_data=rows.jsonl", "++sft.max_num_steps=2", "++checkpointing.stop_after_steps=1"]
        words += ["++policy.train_global_batch_size=4", "++policy.max_total_sequence_length=160"]
        assert main([*words, *keys]) == 0
        return capfd.readouterr().out

    return call


def seen(text: str) -> list[str]:
    """Warnings in the output of a command, without what is to be done."""
    return re.findall("warning: [^:\n]*", text)


@pytest.mark.slow
def test_the_warnings_of_a_chain_are_told_once_while_it_runs_and_afterwards(train, capfd):
    rows = [{"instruction": "Add.", "input": f"{n} 1", "output": "2" * (1 if n > 1 else 300)} for n in range(34)]
    told = train(rows, "++policy.tokenizer.chat_template=null", "++data.add_eos=false")
    assert seen(told) == [STOP, UNUSED, LOST]
    assert re.search(r"^sft-sft-0: continued", told, re.MULTILINE), "negative control: a second job has said the same"
    assert told.index(STOP) < told.index("sft-sft-1: running"), "not only at the end"

    assert main(["status", "sft"]) == 0
    shown = capfd.readouterr().out
    assert seen(shown) == [STOP, UNUSED, LOST]
    assert shown.index("sft-sft-1") < shown.index(STOP) < shown.index("\nconvert-final-ckpt")
    assert main(["status", "sft", "--json"]) == 0
    stages = {stage["name"]: stage["warnings"] for stage in json.loads(capfd.readouterr().out)["stages"]}
    assert [sentence.partition(":")[0] for sentence in stages.pop("sft")] == [
        warning.removeprefix("warning: ") for warning in (STOP, UNUSED, LOST)
    ]
    assert set(map(len, stages.values())) == {0}


@pytest.mark.slow
def test_negative_control_a_clean_training_warns_of_nothing(train, capfd):
    assert seen(train(chat_rows(32))) == []
    assert main(["status", "sft"]) == 0
    assert seen(capfd.readouterr().out) == []
