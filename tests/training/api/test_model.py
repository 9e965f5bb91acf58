"""HuggingFaceModel: the loss of rows, text for prompts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from skills_pipe.errors import DataError, OptionError
from skills_pipe.training.api import HuggingFaceModel, SFTDataset
from skills_pipe.training.data.sources.alpaca import alpaca_prompt
from tests.training.api.seed import alpaca_rows, tiny_folder
from tests.training.tiny import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request, tmp_path_factory):
    return tiny_folder(tmp_path_factory.mktemp("model") / request.param, request.param)


def test_the_loss_of_a_row_is_transformers_own_with_the_prompt_masked(folder):
    model = HuggingFaceModel.from_pretrained(folder).eval()
    row = alpaca_rows(2)[1]
    tokenizer = model.tokenizer
    prompt = tokenizer("<bos>" + alpaca_prompt(row["instruction"]), add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(row["output"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    labels = torch.tensor([[-100] * len(prompt) + answer])
    expected = reference(input_ids=torch.tensor([prompt + answer]), labels=labels).loss
    output = model(row)
    assert output.tokens == len(answer)
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    with_prompt = reference(input_ids=torch.tensor([prompt + answer]), labels=torch.tensor([prompt + answer])).loss
    assert abs(with_prompt.item() - expected.item()) > 1e-3  # the control: the mask matters


def test_weights_of_answers_weigh_in_the_loss(folder):
    model = HuggingFaceModel.from_pretrained(folder)
    heavy, light = (
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text}] for text in ("Hello!", "Bye bye.")
    )
    first, second = model({"messages": heavy}), model({"messages": light})
    weighted = [{"messages": [messages[0], messages[1] | {"weight": w}]} for messages, w in ((heavy, 3), (light, 0.5))]
    both = model(weighted)
    sums = [3 * first.loss.item() * first.tokens, 0.5 * second.loss.item() * second.tokens]
    assert both.tokens == first.tokens + second.tokens
    assert both.loss.item() == pytest.approx(sum(sums) / (3 * first.tokens + 0.5 * second.tokens), rel=1e-5)
    # The control: without weights it is another loss.
    assert model([{"messages": heavy}, {"messages": light}]).loss.item() != pytest.approx(both.loss.item(), rel=1e-4)


def test_gradients_flow_through_the_loss(folder):
    model = HuggingFaceModel.from_pretrained(folder).train()
    model(alpaca_rows(3)).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_answer_is_what_transformers_would_generate(folder):
    model = HuggingFaceModel.from_pretrained(folder)
    ids = model.tokenizer("<bos>Hello", return_tensors="pt", add_special_tokens=False)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    written = reference.generate(**ids, max_length=30, do_sample=False, eos_token_id=4, pad_token_id=0)
    expected = model.tokenizer.decode(written[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)
    assert model.generate("Hello", max_length=30) == expected


def test_several_prompts_at_once_are_answered_as_each_alone(folder):
    model = HuggingFaceModel.from_pretrained(folder)
    prompts = [*alpaca_rows(5), "Hello", {"messages": [{"role": "user", "content": "What is 1 + 1?"}]}]
    alone = [model.generate_all([prompt], 20)[0] for prompt in prompts]
    assert model.generate_all(prompts, 20, batch_size=3) == alone
    assert model.generate("Hello", max_length=26) == alone[5], "'Hello' has six tokens"
    assert len(set(alone)) > 2


def test_generating_leaves_the_model_as_it_was(folder):
    model = HuggingFaceModel.from_pretrained(folder).train()
    row = alpaca_rows(1)[0]
    before = model(row).loss.item()
    model.generate(row, max_length=300)
    assert model.module.training
    assert model(row).loss.item() == before


def test_a_row_without_an_answer_is_asked_as_in_training(folder):
    model = HuggingFaceModel.from_pretrained(folder)
    row = {"instruction": "Add.", "input": "1, 2"}
    assert model.generate(row, max_length=300) == model.generate(alpaca_prompt("Add.", "1, 2"), max_length=300)
    chat = [{"role": "user", "content": "Hi"}]
    text = model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert model.generate({"messages": chat}, max_length=80) == model.generate(text, max_length=80)


def test_the_tools_of_a_row_are_shown_as_in_training(folder):
    model = HuggingFaceModel.from_pretrained(folder)
    model.tokenizer.chat_template = "{{ tools | tojson if tools }}{% for m in messages %}{{ m.content }}{% endfor %}"
    chat = [{"role": "user", "content": "What is 2 plus 3?"}]
    tools = [{"type": "function", "function": {"name": "add"}}]
    asked = model._prompt_text({"messages": chat, "tools": tools})
    assert asked == '[{"type": "function", "function": {"name": "add"}}]What is 2 plus 3?'
    assert model._prompt_text({"messages": chat}) == "What is 2 plus 3?"
    model.tokenizer.chat_template = None
    with pytest.raises(DataError, match="the tokenizer has no chat template of its own"):
        model.generate({"messages": chat})


def test_a_prompt_that_fills_the_length_is_an_error(folder):
    with pytest.raises(OptionError, match="6 tokens, nothing is left to write"):
        HuggingFaceModel.from_pretrained(folder).generate("Hello", max_length=6)


def test_a_text_beyond_the_positions_of_a_model_is_an_error():
    model = HuggingFaceModel(tiny_model("gpt2", max_position_embeddings=64).eval(), tiny_tokenizer(), "gpt2")
    with pytest.raises(OptionError, match="6 tokens and its answer up to 59: the model has 64 positions for both"):
        model.generate("Hello", max_length=65)
    with pytest.raises(OptionError, match=r"prompt 2 has 9 tokens .* up to 56: .*ask for 55 new tokens at most"):
        model.generate_all(["Hello", "Hello..."], 56)
    with pytest.raises(OptionError, match="shorten the prompt"):
        model.generate_all(["Hello" * 20], 1)
    # The control: to the last position it writes, and one with rotary positions has no such end.
    model.module.generation_config.eos_token_id = model.tokenizer.eos_token_id = None
    assert len(model._ids(model.generate("Hello", max_length=64))) > 6
    model.module = tiny_model("llama", max_position_embeddings=64).eval()
    model.generate("Hello", max_length=65)


@pytest.mark.parametrize(
    ("row", "what"),
    [({"instruction": "Add."}, "'output' is missing"), ({"question": "?"}, "neither 'messages' nor 'input'")],
)
def test_a_row_that_cannot_be_read_is_an_error(folder, row, what):
    with pytest.raises(DataError, match=what):
        HuggingFaceModel.from_pretrained(folder)(row)


def test_saved_and_loaded_it_is_the_same(folder, tmp_path):
    model = HuggingFaceModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "saved")
    again = HuggingFaceModel.from_pretrained(tmp_path / "saved")
    row = alpaca_rows(1)[0]
    assert again(row).loss.item() == model(row).loss.item()


def test_rows_of_a_program_are_those_of_a_file(tmp_path):
    from tests.training.api.seed import write_array

    rows = alpaca_rows(3)
    written, given = SFTDataset(write_array(tmp_path / "train.json", rows)), SFTDataset(rows)
    assert list(written) == list(given) == rows
    assert (len(given), given[-1]) == (3, rows[-1])
    folder = given.path.parent
    assert folder.is_dir()
    del given
    assert not folder.exists()


def test_no_rows_are_an_error(tmp_path):
    with pytest.raises(DataError, match="has no rows"):
        SFTDataset([])
