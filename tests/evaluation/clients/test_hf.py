"""Generation in process: batches change the speed, never the answers."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from skills_pipe.errors import CheckpointError, DataError, OptionError
from skills_pipe.evaluation.clients.base import CONTEXT_WINDOW_EXCEEDED, Request
from skills_pipe.evaluation.clients.hf import HfClient, HfOptions
from skills_pipe.evaluation.settings import Inference
from tests.training.tiny import save_tiny_model

QUESTIONS = [
    "1+1?",
    "How many apples?",
    "Tell me, what is the sum of twelve and thirty-five, please?",
    "Why?",
    "A long question " * 8,
    "And 7 - 3?",
    "x",
]
REQUESTS = [Request(position=i, messages=[{"role": "user", "content": q}]) for i, q in enumerate(QUESTIONS)]
GREEDY = Inference(tokens_to_generate=24, batch_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose weights are large enough that its answers vary."""
    folder = save_tiny_model(tmp_path_factory.mktemp("model"), seed=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    model.generation_config.do_sample = True
    model.generation_config.repetition_penalty = 1.7
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def client(folder):
    return HfClient(HfOptions(model=str(folder), dtype="float32"))


def texts(client, inference, requests=REQUESTS):
    return {answer.position: answer.text for answer in client.generate(requests, inference)}


def one_by_one(folder, *, padding=0, side="left"):
    """Greedy answers straight from transformers, one prompt at a time, optionally padded."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    answers = {}
    for request in REQUESTS:
        ids = tokenizer.apply_chat_template(
            list(request.messages), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        pad = torch.zeros(1, padding, dtype=torch.long)
        parts = [pad, ids] if side == "left" else [ids, pad]
        masks = [pad, torch.ones_like(ids)] if side == "left" else [torch.ones_like(ids), pad]
        output = model.generate(
            torch.cat(parts, 1),
            attention_mask=torch.cat(masks, 1),
            max_new_tokens=24,
            do_sample=False,
            repetition_penalty=1.0,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=0,
        )
        answers[request.position] = tokenizer.decode(output[0, ids.shape[1] + padding :], skip_special_tokens=True)
    return answers


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_batched_answers_equal_those_of_one_prompt_at_a_time(client, folder, batch_size):
    inference = Inference(tokens_to_generate=24, batch_size=batch_size)
    assert texts(client, inference) == one_by_one(folder)


def test_padding_on_the_wrong_side_would_be_seen(folder):
    """Negative control: the answers do depend on where the padding is."""
    assert one_by_one(folder, padding=9, side="right") != one_by_one(folder)
    assert one_by_one(folder, padding=9, side="left") == one_by_one(folder)


def test_the_answers_vary_so_that_a_mix_up_of_rows_would_be_seen(folder):
    assert len(set(one_by_one(folder).values())) == len(QUESTIONS)


def test_what_the_checkpoint_recommends_for_sampling_is_not_used(client, folder):
    assert AutoModelForCausalLM.from_pretrained(folder).generation_config.repetition_penalty == 1.7
    assert texts(client, GREEDY) != texts(client, Inference(tokens_to_generate=24, repetition_penalty=1.7))


def test_sampled_answers_depend_on_seed_and_row_only(client):
    def sampled(**changes):
        return Inference(tokens_to_generate=16, temperature=1.0, top_p=1.0, **changes)

    first = texts(client, sampled(batch_size=64))
    assert texts(client, sampled(batch_size=2)) == first
    assert texts(client, sampled(batch_size=64), REQUESTS[3:]) == {p: t for p, t in first.items() if p >= 3}
    other = texts(client, sampled(batch_size=64, random_seed=1))
    assert all(other[position] != first[position] for position in first)


def test_top_k_one_is_greedy(client):
    assert texts(client, Inference(tokens_to_generate=24, temperature=5.0, top_k=1)) == texts(client, GREEDY)


def test_an_answer_ends_before_a_stop_phrase(client):
    free = texts(client, GREEDY)
    position, phrase = next(
        (position, match[0]) for position, text in free.items() if (match := re.search("[!-~]{2}", text[1:20]))
    )
    stopping = Inference(tokens_to_generate=24, batch_size=4, stop_phrases=(phrase,))
    answers = {answer.position: answer for answer in client.generate(REQUESTS, stopping)}
    assert answers[position].text == free[position].partition(phrase)[0]
    assert answers[position].finish_reason == "stop"
    assert 0 < answers[position].num_generated_tokens < 24
    for other, text in free.items():
        if phrase not in text:
            assert answers[other].text == text


def test_the_end_token_ends_an_answer_and_counts_as_generated(folder, tmp_path):
    """A model that always says the same token, which is its end token."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.model.norm.weight.fill_(1.0)
    model.generation_config.do_sample = True
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    client = HfClient(HfOptions(model=str(tmp_path)))
    # All logits are 0, so the first token of the vocabulary wins; it is no end token.
    (answer,) = client.generate(REQUESTS[:1], GREEDY)
    assert (answer.finish_reason, answer.num_generated_tokens) == ("length", 24)
    model.generation_config.eos_token_id = [0, 7]
    model.save_pretrained(tmp_path)
    (answer,) = HfClient(HfOptions(model=str(tmp_path))).generate(REQUESTS[:1], GREEDY)
    assert (answer.text, answer.finish_reason, answer.num_generated_tokens) == ("", "stop", 1)


def test_a_prompt_that_leaves_little_room_is_answered_as_far_as_it_goes(client):
    full = Request(position=0, messages=[{"role": "user", "content": "x" * 470}])
    over = Request(position=1, messages=[{"role": "user", "content": "x" * 600}])
    answers = {a.position: a for a in client.generate([full, over, REQUESTS[2]], GREEDY)}
    assert answers[0].finish_reason == "length"
    assert 0 < answers[0].num_generated_tokens < 24
    assert answers[1].error == CONTEXT_WINDOW_EXCEEDED
    assert "512" in answers[1].detail
    assert answers[2].text == texts(client, GREEDY)[2]


def test_a_model_without_a_chat_template_reads_bos_and_the_text(folder, tmp_path, client):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    base = HfClient(HfOptions(model=str(tmp_path)))
    assert base._encode(REQUESTS[0]) == [tokenizer.bos_token_id, *tokenizer.encode("1+1?", add_special_tokens=False)]
    assert base._encode(REQUESTS[0]) != client._encode(REQUESTS[0])


def test_a_template_that_refuses_a_prompt_is_told(folder, tmp_path):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{{ raise_exception('no system message, please') }}"
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(DataError, match="refuses a prompt: no system message, please"):
        list(HfClient(HfOptions(model=str(tmp_path))).generate(REQUESTS, GREEDY))


def test_a_missing_model_and_a_missing_device_are_one_line(tmp_path, folder):
    with pytest.raises(CheckpointError, match="cannot load the model") as caught:
        HfClient(HfOptions(model=str(tmp_path / "nowhere")))
    assert "\n" not in str(caught.value)
    with pytest.raises(OptionError, match="cannot use device 'cuba'"):
        HfClient(HfOptions(model=str(folder), device="cuba"))
