"""Training and validation data of two kinds, told before the queue."""

import pytest

from skills_pipe.pipeline.cli import main

PAIR = '{"input": "a", "output": "b"}\n'
CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        (PAIR, CHAT, "train.jsonl holds rows of input and output, {val} rows of messages ("),
        (CHAT, PAIR, "train.jsonl holds rows of messages, {val} rows of input and output ("),
    ],
)
def test_data_of_two_kinds_are_told_before_the_queue(train, val, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "train.jsonl").write_text(train * 3)
    words = ["nemo_rl", "sft", "--output_dir=out", "--hf_model=./model", "--training_data=train.jsonl", "--dry_run"]
    words += ["--validation_data=val.jsonl", "++sft.max_num_steps=1", "++policy.train_global_batch_size=1"]

    def dry_run(text, *more):
        (tmp_path / "val.jsonl").write_text(text)
        code = main([*words, *more])
        return code, "".join(capsys.readouterr())

    # As in the trainer: data of which every row would be left out are no single bad rows.
    for more in ([], ["++data.on_bad_row=skip"]):
        code, output = dry_run(val * 3, *more)
        assert code == 2 and told.format(val=tmp_path / "val.jsonl") in output, output
        assert "++policy.tokenizer.chat_template=default" in output
    # The controls: with what is told, with rows of one kind, and with a single row of the other.
    for text, more in ((val * 3, ["++policy.tokenizer.chat_template=default"]), (train * 3, []), (val + train, [])):
        code, output = dry_run(text, *more)
        assert code == 0 and "holds rows of" not in output, output
