"""Characters of several tokens at the end of what a template marks: all of their tokens are trained.

Hugging Face's mask ends with the first token of the last character, so that a model would not be trained to write the
rest of it. It differs from ours there and nowhere else.
"""

from __future__ import annotations

import pytest

from skills_pipe.training.data.build import DataSettings, build_dataset
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.template import resolve_template
from tests.training.tiny import CHAT_TEMPLATE, tiny_tokenizer, write_jsonl

MARKED = "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
CONTENT_ALONE = CHAT_TEMPLATE.replace(MARKED, "{{ message['content'] }}{% endgeneration %}{{ '<|im_end|>' }}")
"""The mark ends with the answer's own last character, and not with a stop token, which is always whole."""


def conversation(answer):
    return [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]


def ours(folder, answer, template):
    """Token ids and mask."""
    tokenizer = tiny_tokenizer()
    source = DataSource(path=write_jsonl(folder / "rows.jsonl", [{"messages": conversation(answer)}]))
    resolved = resolve_template(template, tokenizer, None, "chat")
    made = build_dataset([source], tokenizer, resolved, DataSettings(max_length=200))[0]
    return made.input_ids.tolist(), made.loss_mask.tolist()


def hugging_faces(answer, template):
    made = tiny_tokenizer().apply_chat_template(
        conversation(answer), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    return made["input_ids"], made["assistant_masks"]


def answer_tokens(ids, mask):
    return tiny_tokenizer().decode([i for i, trained in zip(ids, mask, strict=True) if trained])


def test_the_template_marks_the_answer_without_its_stop_token():
    assert CONTENT_ALONE != CHAT_TEMPLATE


@pytest.mark.parametrize(("answer", "left_out"), [("ok 🙂", 3), ("l'été", 1), ("é", 1)])
def test_the_last_character_of_an_answer_is_trained_with_all_its_tokens(tmp_path, answer, left_out):
    ids, mask = ours(tmp_path, answer, CONTENT_ALONE)
    their_ids, their_mask = hugging_faces(answer, CONTENT_ALONE)
    assert ids == their_ids
    assert answer_tokens(ids, mask) == answer
    assert answer_tokens(their_ids, their_mask) != answer
    first = next(at for at, (a, b) in enumerate(zip(mask, their_mask, strict=True)) if a != b)
    assert mask[first : first + left_out] == [1] * left_out and sum(mask) - sum(their_mask) == left_out


@pytest.mark.parametrize(
    ("answer", "template"),
    [("🙂 ok", CONTENT_ALONE), ("ok", CONTENT_ALONE), ("ok 🙂", CHAT_TEMPLATE), ("é", CHAT_TEMPLATE)],
)
def test_elsewhere_the_mask_is_hugging_faces(tmp_path, answer, template):
    assert ours(tmp_path, answer, template) == hugging_faces(answer, template)
