"""Prompts of different lengths at once: each gets what it gets alone."""

from __future__ import annotations

import pytest
import torch

from skills_pipe.training.models import attention
from skills_pipe.training.models.generate import Generation, Prompt, generate
from tests.training.tiny import ARCHITECTURES, tiny_model

STOP = 7
HOW = Generation(stop_ids=(STOP,), pad_id=0, batch_size=4)


def prompts(*lengths: int, limit: int = 12) -> list[Prompt]:
    generator = torch.Generator().manual_seed(1)
    ids = [tuple(torch.randint(5, 264, (length,), generator=generator).tolist()) for length in lengths]
    return [Prompt(ids=each, limit=limit) for each in ids]


def greedy(model, prompt: Prompt) -> list[int]:
    """Written without cache, padding or generate: the most likely token after the whole text, again and again."""
    ids = list(prompt.ids)
    while len(ids) - len(prompt.ids) < prompt.limit and STOP not in ids[len(prompt.ids) :]:
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt.ids) :]


def stopping_model(architecture: str, **changes):
    """A model that writes the stop token after some prompts and not after others."""
    model = tiny_model(architecture, seed=3, **changes).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger weights: what is written depends on what stands before it.
            parameter.mul_(3.0)
        output = model.get_output_embeddings().weight
        output[STOP] = output[STOP] * 3.0
    return model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_several_prompts_at_once_are_written_on_as_each_alone(architecture):
    model = stopping_model(architecture, tie_word_embeddings=False)
    asked = prompts(3, 17, 1, 40, 9, 9, 28)
    expected = [greedy(model, prompt) for prompt in asked]
    found = generate(model, asked, HOW)
    assert [found[index] for index in range(len(asked))] == expected
    assert len({tuple(answer) for answer in expected}) > 3, "the texts differ"


@pytest.mark.parametrize("published", [{"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"num_beams": 3}])
def test_settings_published_with_a_model_do_not_change_its_most_likely_tokens(published):
    """Those of many models punish repetitions (1.05 with Qwen 2.5), by some rules those of the padding too."""
    model = stopping_model("llama")
    asked = prompts(3, 17, 1, 40, 9, 9, 28)
    expected = [greedy(model, prompt) for prompt in asked]
    own = model.generation_config
    own.update(**published)
    plainly = model.generate(torch.tensor([asked[1].ids]), max_new_tokens=12, eos_token_id=STOP, do_sample=False)
    assert plainly[0, 17:].tolist() != expected[1], "they change what transformers writes"

    found = generate(model, asked, HOW)
    assert [found[index] for index in range(len(asked))] == expected
    assert model.generation_config is own


def test_some_texts_end_before_others():
    """The control of the comparison above: it has texts of different lengths."""
    model = stopping_model("llama")
    lengths = {len(greedy(model, prompt)) for prompt in prompts(*range(1, 41))}
    assert len(lengths) > 1
    assert max(lengths) == 12


def test_padding_that_the_model_sees_would_be_noticed(monkeypatch):
    model = stopping_model("llama")
    asked = prompts(3, 17, 1, 40)
    expected = [greedy(model, prompt) for prompt in asked]
    right = model.generate
    monkeypatch.setattr(
        model, "generate", lambda ids, attention_mask, **how: right(ids, attention_mask=torch.ones_like(ids), **how)
    )
    found = generate(model, asked, HOW)
    assert [found[index] for index in range(len(asked))] != expected


def test_each_prompt_keeps_to_its_own_limit():
    model = stopping_model("llama")
    asked = [Prompt(ids=prompt.ids, limit=limit) for prompt, limit in zip(prompts(4, 4, 4), (1, 5, 9), strict=True)]
    found = generate(model, asked, HOW)
    assert [found[index] for index in range(3)] == [greedy(model, prompt) for prompt in asked]


def test_positions_of_gpt2_are_enough_for_every_text_that_fits_alone():
    """With one long and one short prompt in a batch, the long one would grow beyond the end of the positions."""
    model = stopping_model("gpt2", max_position_embeddings=64)
    asked = [Prompt(ids=prompt.ids, limit=64 - len(prompt.ids)) for prompt in prompts(4, 6, 50, 60)]
    found = generate(model, asked, HOW)
    assert [found[index] for index in range(4)] == [greedy(model, prompt) for prompt in asked]


def test_random_choices_are_made_on_request():
    model = stopping_model("llama")
    asked = prompts(5, limit=30)
    hot = Generation(stop_ids=(), pad_id=0, sampling={"temperature": 5.0, "top_k": 0})
    torch.manual_seed(0)
    first = generate(model, asked, hot)
    second = generate(model, asked, hot)
    torch.manual_seed(0)
    assert first == generate(model, asked, hot)
    assert first != second


def sampled(model, prompt: Prompt, temperature: float) -> list[int]:
    """Written without generate: tokens drawn by their probabilities, again and again."""
    ids = list(prompt.ids)
    for _ in range(prompt.limit):
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[:, -1]
        ids.append(int(torch.multinomial((logits / temperature).softmax(-1), 1)))
    return ids[len(prompt.ids) :]


@pytest.mark.parametrize(
    "published",
    [{}, {"top_k": 2}, {"top_p": 0.1}, {"temperature": 0.1}, {"repetition_penalty": 3.0, "min_p": 0.5}],
    ids=str,
)
def test_what_is_drawn_is_what_was_asked_for_whatever_is_published_with_the_model(published):
    """One temperature means the same of every model; transformers by itself leaves out all but 50 tokens."""
    model = stopping_model("llama")
    (asked,) = prompts(5, limit=40)
    model.generation_config.update(do_sample=True, **published)
    torch.manual_seed(0)
    expected = sampled(model, asked, 4.0)
    torch.manual_seed(0)
    found = generate(model, [asked], Generation(stop_ids=(), pad_id=0, sampling={"temperature": 4.0}))
    assert found[0] == expected

    # The control: what the published settings, and transformers' own, make of it.
    torch.manual_seed(0)
    mixed = model.generate(torch.tensor([asked.ids]), max_new_tokens=40, temperature=4.0, eos_token_id=None)
    assert mixed[0, len(asked.ids) :].tolist() != expected


def test_the_model_is_left_as_it_was():
    model = stopping_model("llama").train()
    model.set_attn_implementation(attention.IMPLEMENTATION)
    generate(model, prompts(3), HOW)
    assert model.training
    assert model.config._attn_implementation == attention.IMPLEMENTATION
