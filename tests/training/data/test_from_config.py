import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.config import load_config
from skills_pipe.training.data.from_config import (
    batch_sampler,
    batch_settings,
    data_settings,
    load_data,
    load_validation,
)
from tests.training.tiny import CHAT_TEMPLATE, chat_rows, tiny_tokenizer, write_jsonl


def config_of(train, *overrides):
    return load_config(None, ["policy.model_name=none", f"data.train_data_path={train}", *overrides])


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """What is kept by default lies below the folder of the call."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def chats(tmp_path):
    return write_jsonl(tmp_path / "chats.jsonl", chat_rows(40))


def test_training_and_validation_rows_get_the_same_template(tmp_path, chats):
    held_out = write_jsonl(tmp_path / "val.jsonl", chat_rows(5, seed=1))
    data = load_data(config_of(chats, f"data.val_data_path={held_out}"), tiny_tokenizer())
    assert (len(data.train), len(data.validation["val"])) == (40, 5)
    assert data.template.text == CHAT_TEMPLATE


KINDS = {"messages": chat_rows(12, seed=1), "input and output": [{"input": "q", "output": f"a{n}"} for n in range(12)]}


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize(("first", "second"), [tuple(KINDS), tuple(reversed(KINDS))])
def test_validation_rows_of_another_kind_are_told_in_one_line_with_what_serves_both(
    first, second, on_bad_row, tmp_path
):
    train = write_jsonl(tmp_path / "train.jsonl", KINDS[first])
    val = write_jsonl(tmp_path / "val.jsonl", KINDS[second])
    words = [f"data.val_data_path={val}", f"data.on_bad_row={on_bad_row}"]
    for load in (load_data, load_validation):
        with pytest.raises(DataError) as caught:
            load(config_of(train, *words), tiny_tokenizer())
        told = str(caught.value)
        assert told.count("\n") == 0 and "on_bad_row" not in told
        assert f"{train} holds rows of {first}, {val} rows of {second} (" in told
        assert "++policy.tokenizer.chat_template=default" in told

    # What is told works, and nothing is left out.
    data = load_data(config_of(train, *words, "++policy.tokenizer.chat_template=default"), tiny_tokenizer())
    assert (len(data.train), len(data.validation["val"])) == (12, 12)
    assert "<|im_start|>assistant" in tiny_tokenizer().decode(data.train[0].input_ids)
    assert "<|im_start|>assistant" in tiny_tokenizer().decode(data.validation["val"][0].input_ids)


def test_a_single_row_of_another_kind_is_a_bad_row(tmp_path, chats):
    """The control of the test above."""
    mixed = write_jsonl(tmp_path / "val.jsonl", [KINDS["input and output"][0], *KINDS["messages"]])
    with pytest.raises(DataError, match="a row of input and output among rows of messages"):
        load_data(config_of(chats, f"data.val_data_path={mixed}"), tiny_tokenizer())
    data = load_data(config_of(chats, f"data.val_data_path={mixed}", "data.on_bad_row=skip"), tiny_tokenizer())
    assert len(data.validation["val"]) == 12


def test_without_validation_rows_there_is_no_validation_set(chats):
    assert load_data(config_of(chats), tiny_tokenizer()).validation == {}


def test_keys_and_prompts_reach_the_rows(tmp_path):
    rows = write_jsonl(tmp_path / "rows.jsonl", [{"q": "1+1", "a": "2"}])
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("Compute {}.")
    overrides = ["data.input_key=q", "data.output_key=a", f"data.prompt_file={prompt}", "data.system_prompt=S:"]
    overrides += ["data.add_bos=true", "data.add_eos=true"]
    data = load_data(config_of(rows, *overrides), tiny_tokenizer())
    assert tiny_tokenizer().decode(data.train[0].input_ids) == "<bos>S:Compute 1+1.2<|im_end|>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "is no prompt"),
        (b"{0.absent}", "is no prompt"),
        (b"no place", "has no {} to put the question"),
        (b"\xff {}", "it is no text in UTF-8"),
    ],
)
def test_a_prompt_without_place_is_an_error(tmp_path, chats, text, message):
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        load_data(config_of(chats, f"data.prompt_file={prompt}"), tiny_tokenizer())


def test_a_prompt_that_cannot_be_read_is_an_error(chats):
    with pytest.raises(ConfigError, match=r"cannot read absent.txt: .* \(data.prompt_file\)"):
        load_data(config_of(chats, "data.prompt_file=absent.txt"), tiny_tokenizer())


def test_settings_follow_the_configuration(chats):
    config = config_of(
        chats,
        "policy.max_total_sequence_length=77",
        "policy.train_micro_batch_size=3",
        "policy.train_global_batch_size=6",
        "policy.sequence_packing.algorithm=best_fit_decreasing",
        "sft.only_unmask_final=true",
        "sft.seed=9",
        "data.overlong=truncate",
        "data.on_bad_row=skip",
        "data.shuffle=false",
    )
    rows = data_settings(config)
    assert (rows.max_length, rows.only_final, rows.overlong, rows.on_bad_row) == (77, True, "truncate", "skip")
    batches = batch_settings(config)
    assert (batches.capacity, batches.micro_batch_size, batches.algorithm, batches.seed) == (
        231,
        3,
        "best_fit_decreasing",
        9,
    )
    data = load_data(config, tiny_tokenizer())
    sampler = batch_sampler(config, data.train, batches)
    assert (sampler.batch_size, sampler.seed, sampler.batch(0).tolist()) == (6, 9, list(range(6)))
