"""``ns convert`` on this machine, from a training to the hub: what differs from the training goes no further."""

import os
import re
from pathlib import Path

import pytest

from skills_pipe.artifacts import manifest as manifests
from skills_pipe.errors import JobFailed
from skills_pipe.pipeline.cli import convert, wrap_arguments
from skills_pipe.training.sft import main as train
from tests.training.release.model_hub import TOKEN, ModelHub
from tests.training.sft_arguments import arguments
from tests.training.tiny import chat_rows, save_tiny_model, write_jsonl


def released(**options):
    """The command, with everything that can follow a conversion."""
    return convert(
        ctx=wrap_arguments(""),
        expname="release",
        input_model="run",
        output_model="model",
        validate=True,
        archive="model.nemo",
        push_to_hub="my-org/my-model",
        **options,
    )


def files_with(text: str, folder: Path) -> list[str]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in paths if text.encode() in path.read_bytes()]


@pytest.mark.slow
def test_only_a_model_with_the_trainers_loss_is_given_away(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    base = save_tiny_model(tmp_path / "base")
    rows = write_jsonl(tmp_path / "rows.jsonl", chat_rows(32))
    held_out = write_jsonl(tmp_path / "held-out.jsonl", chat_rows(8, seed=1))
    assert train(arguments(base, rows, tmp_path / "run", "sft.max_num_steps=2", validation=held_out)) == 0
    with ModelHub().serving() as hub:
        given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": "hf", "HF_HUB_DISABLE_XET": "1"}
        for name, value in {**given, "SKILLS_PIPE_JOB_DIR": "records", "OMP_NUM_THREADS": "1"}.items():
            monkeypatch.setenv(name, str(tmp_path / value) if value in ("hf", "records") else value)

        # Other rows than the trainer saw: the losses differ, and nothing follows.
        os.rename(held_out, tmp_path / "kept.jsonl")
        write_jsonl(held_out, [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}])
        with pytest.raises(JobFailed, match="validate-model"):
            released()
        assert f"model: {tmp_path}/model" not in capfd.readouterr().out
        assert hub.commits == {}
        assert not (tmp_path / "model.nemo").exists()

        os.replace(tmp_path / "kept.jsonl", held_out)
        capfd.readouterr()
        actions = dict(released().actions)
        last = capfd.readouterr().out.splitlines()[-1]
        assert re.fullmatch(
            rf"model: {tmp_path}/model \(step 2, validation loss [\d.]+, archive {tmp_path}/model.nemo\)", last
        )
        assert actions == {
            "convert-final-ckpt": "skip",
            "validate-model": "run",
            "pack-archive": "run",
            "push-to-hub": "run",
        }
        assert hub.commits == {"my-org/my-model": ["Step 2"]}
        assert set(dict(released().actions).values()) == {"skip"}
        assert hub.commits == {"my-org/my-model": ["Step 2"]}
    assert manifests.read(tmp_path / "model.nemo").facts["step"] == 2
    assert TOKEN not in "".join(capfd.readouterr())
    assert files_with(TOKEN, tmp_path) == []
