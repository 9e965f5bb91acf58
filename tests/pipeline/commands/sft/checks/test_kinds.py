"""Training and validation data of two kinds, told before the queue."""

import pytest

from skills_pipe.pipeline.cli import main

PAIR = '{"input": "a", "output": "b"}\n'
CHAT = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


@pytest.fixture
def dry_run(tmp_path, monkeypatch, capsys):
    """Exit status of a dry run with these training and validation data, and what it tells."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    words = ["nemo_rl", "sft", "--output_dir=out", "--hf_model=./model", "--training_data=train.jsonl", "--dry_run"]
    words += ["--validation_data=val.jsonl", "++sft.max_num_steps=1", "++policy.train_global_batch_size=1"]

    def run(train, val, *more):
        (tmp_path / "train.jsonl").write_text(train)
        (tmp_path / "val.jsonl").write_text(val)
        code = main([*words, *more])
        return code, "".join(capsys.readouterr())

    return run


@pytest.mark.parametrize(
    ("train", "val", "told"),
    [
        (PAIR, CHAT, "train.jsonl holds rows of input and output, {val} rows of messages ("),
        (CHAT, PAIR, "train.jsonl holds rows of messages, {val} rows of input and output ("),
    ],
)
def test_data_of_two_kinds_are_told_before_the_queue(train, val, told, tmp_path, dry_run):
    # As in the trainer: data of which every row would be left out are no single bad rows.
    for more in ([], ["++data.on_bad_row=skip"]):
        code, output = dry_run(train * 3, val * 3, *more)
        assert code == 2 and told.format(val=tmp_path / "val.jsonl") in output, output
        assert "++policy.tokenizer.chat_template=default" in output
    # The controls: with what is told, with rows of one kind, and with a single row of the other.
    for text, more in ((val * 3, ["++policy.tokenizer.chat_template=default"]), (train * 3, []), (val + train, [])):
        code, output = dry_run(train * 3, text, *more)
        assert code == 0 and "holds rows of" not in output, output


def long(row):
    """A row of 40 kB, so that the launcher does not see the end of the second one."""
    return row.replace('"a"', '"' + "a" * 40_000 + '"')


def test_what_later_rows_may_change_is_a_warning(dry_run):
    # 20 rows decide in the trainer, where this is a data set with bad rows.
    code, output = dry_run(PAIR * 3, long(CHAT) * 2 + PAIR * 3)
    assert code == 0 and "holds rows of input and output" in output
    assert "as far as its first rows were read" in output
    # The controls: 20 rows were seen, or the whole file was.
    for data in (CHAT * 20 + long(CHAT) * 2 + PAIR, CHAT * 3):
        code, output = dry_run(PAIR * 3, data)
        assert code == 2 and "as far as its first rows" not in output


def test_a_first_row_from_which_nothing_can_be_inferred_is_told_as_the_trainer_does(dry_run):
    both = CHAT.replace("}]}", '}], "input": "a", "output": "b"}')
    told = "the first row has messages and input/output: the chat template cannot be inferred"
    code, output = dry_run(both * 3, PAIR * 3)
    assert code == 2 and told in output and "set it to null or 'default'" in output
    assert "holds rows of" not in output
    assert told not in dry_run(PAIR + both, PAIR)[1]
