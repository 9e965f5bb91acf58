"""Prompts and answers are what the tokenizer's own chat template writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from skills_pipe.errors import ConfigError, DataError, OptionError
from skills_pipe.training.prepare.chat import ChatFormat, TokenCounter, Turn
from tests.training.prepare.rows import CHATML, CHATML_WITH_KEYWORDS, NO_TEMPLATE

USER = [{"role": "user", "content": "What is 1 + 1?"}]


def with_template(folder: Path, template: str) -> str:
    """A tokenizer with another chat template."""
    shutil.copytree(CHATML, folder)
    (folder / "chat_template.jinja").write_text(template)
    return str(folder)


def test_prompt_and_answer_together_are_the_rendered_conversation():
    chat = ChatFormat(CHATML)
    (prompt,) = chat.prompts([USER])
    (answer,) = chat.answers([Turn(content="It is 2.")])
    conversation = [*USER, {"role": "assistant", "content": "It is 2."}]
    assert prompt + answer == AutoTokenizer.from_pretrained(CHATML).apply_chat_template(conversation, tokenize=False)


def test_an_answer_that_was_cut_off_is_not_closed():
    chat = ChatFormat(CHATML)
    whole, cut = chat.answers([Turn(content="It is 2."), Turn(content="It is ", complete=False)])
    assert whole == "It is 2.<|im_end|>\n"
    assert cut == "It is "


def test_reasoning_is_written_by_the_template():
    chat = ChatFormat(CHATML)
    whole, cut = chat.answers(
        [Turn(content="2", thinking="one and one"), Turn(content="2", thinking="one and one", complete=False)]
    )
    assert whole == "<think>\none and one\n</think>\n\n2<|im_end|>\n"
    assert cut == "<think>\none and one\n</think>\n\n2"


def test_a_template_that_drops_reasoning_is_an_error(tmp_path):
    template = "{% for message in messages %}[{{ message['role'] }}]{{ message['content'] }}{% endfor %}"
    chat = ChatFormat(with_template(tmp_path / "t", template + "{% if add_generation_prompt %}[assistant]{% endif %}"))
    assert chat.answers([Turn(content="2")]) == ["2"]
    with pytest.raises(DataError, match="leaves reasoning_content out"):
        chat.answers([Turn(content="2", thinking="hm")])


def test_a_prompt_may_open_more_than_the_answer_repeats():
    chat = ChatFormat(CHATML, {"enable_thinking": False})
    assert chat.prompts([USER])[0].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert chat.answers([Turn(content="2")]) == ["2<|im_end|>\n"]


def test_keywords_reach_the_template():
    assert "You are Ada" in ChatFormat(CHATML_WITH_KEYWORDS, {"persona": "Ada"}).prompts([USER])[0]
    assert "You are" not in ChatFormat(CHATML_WITH_KEYWORDS).prompts([USER])[0]


def test_a_template_that_does_not_continue_its_prompt_is_an_error(tmp_path):
    template = "{{ messages | length }} turns{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = ChatFormat(with_template(tmp_path / "t", template))
    with pytest.raises(ConfigError, match="does not continue its own prompt"):
        chat.answers([Turn(content="2")])


def test_what_a_template_refuses_is_an_error_of_the_user(tmp_path):
    template = "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    template += "{{ m['content'] }}{% endfor %}"
    chat = ChatFormat(with_template(tmp_path / "t", template))
    with pytest.raises(ConfigError, match="no system"):
        chat.prompts([[{"role": "system", "content": "x"}, *USER]])


def test_a_base_model_gets_its_start_and_end_tokens():
    chat = ChatFormat(NO_TEMPLATE)
    assert chat.prompts([USER]) == ["<s>What is 1 + 1?"]
    assert chat.answers([Turn(content="2"), Turn(content="2", complete=False)]) == ["2</s>", "2"]


def test_a_base_model_takes_no_system_message_reasoning_or_keywords():
    chat = ChatFormat(NO_TEMPLATE)
    with pytest.raises(ConfigError, match="system message"):
        chat.prompts([[{"role": "system", "content": "x"}, *USER]])
    with pytest.raises(DataError, match="reasoning_content"):
        chat.answers([Turn(content="2", thinking="hm")])
    with pytest.raises(ConfigError, match="chat_template_kwargs"):
        ChatFormat(NO_TEMPLATE, {"enable_thinking": True})


def test_a_base_model_without_an_end_token_is_an_error(tmp_path):
    folder = tmp_path / "t"
    shutil.copytree(NO_TEMPLATE, folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="assistant_end"):
        ChatFormat(str(folder)).answers([Turn(content="2")])


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OptionError, match="there is no folder"):
        ChatFormat(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OptionError, match="no tokenizer can be loaded"):
        ChatFormat(str(tmp_path / "empty"))


def test_tokens_are_counted_without_special_ones():
    tokenizer = AutoTokenizer.from_pretrained(CHATML)
    texts = ["sum and sum", "", "ß 🙂"]
    expected = [len(tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    assert TokenCounter(CHATML)(texts) == expected
    assert TokenCounter(CHATML)([]) == []
