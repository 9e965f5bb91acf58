"""What is shown of rows: the very documents that training makes, with roles and reasons."""

import pytest

from skills_pipe.training.data.build import build_dataset
from skills_pipe.training.data.preview.samples import shown_documents
from skills_pipe.training.data.rows import BadRow, Conversation, Pieces, Segment
from skills_pipe.training.data.sources import DataSource, read_rows
from tests.training.data.looking import chat, recipe
from tests.training.tiny import chat_rows, write_jsonl

THINKING = (
    "{% set last = messages | selectattr('role', 'equalto', 'user') | list | last %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.index0 < messages.index(last) %}{{ m.content.split('</t>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Takes the reasoning out of all answers before the last question, as Qwen 3 does."""


def rows_of(tmp_path, *rows):
    return list(read_rows(DataSource(path=write_jsonl(tmp_path / "rows.jsonl", rows))))


def told(document):
    """(role, text, trained text) of each turn."""
    return [
        (role, "".join(t.text for t in tokens), "".join(t.text for t in tokens if t.weight))
        for role, tokens in document.turns()
    ]


def test_what_is_shown_is_what_is_trained(tmp_path):
    how = recipe(max_length=70, overlong="truncate")
    path = write_jsonl(tmp_path / "rows.jsonl", [*chat_rows(30), chat("x" * 100, "a", "b", "c")])
    dataset = build_dataset([DataSource(path=path)], how.tokenizer, how.template, how.settings)
    shown = shown_documents(read_rows(DataSource(path=path)), how, 100)
    assert [[token.id for token in document.tokens] for document in shown] == [
        dataset[index].input_ids.tolist() for index in range(len(dataset))
    ]
    assert [[token.weight for token in document.tokens] for document in shown] == [
        dataset[index].loss_mask.tolist() for index in range(len(dataset))
    ]


def test_each_message_has_its_role(tmp_path):
    (document,) = shown_documents(rows_of(tmp_path, chat("q", "a", "r", "b", system="s")), recipe(), 1)
    assert told(document) == [
        ("system", "<bos><|im_start|>system\ns<|im_end|>\n", ""),
        ("user", "<|im_start|>user\nq<|im_end|>\n", ""),
        ("assistant", "<|im_start|>assistant\na<|im_end|>\n", "a<|im_end|>"),
        ("user", "<|im_start|>user\nr<|im_end|>\n", ""),
        ("assistant", "<|im_start|>assistant\nb<|im_end|>\n", "b<|im_end|>"),
    ]


def test_tokens_that_training_adds_belong_to_their_neighbours(tmp_path):
    how = recipe(template=None, add_bos=True, add_eos=True)
    (document,) = shown_documents(rows_of(tmp_path, {"input": "IN", "output": "OUT"}), how, 1)
    assert told(document) == [("user", "<bos>IN", ""), ("assistant", "OUT<|im_end|>", "OUT<|im_end|>")]


def test_a_shortened_document_keeps_its_roles_and_says_so(tmp_path):
    how = recipe(max_length=60, overlong="truncate")
    (document,) = shown_documents(rows_of(tmp_path, chat("x" * 100, "answer")), how, 1)
    assert [role for role, _, _ in told(document)][-1] == "assistant"
    assert told(document)[-1][2] == "answer<|im_end|>"
    assert len(document.tokens) == 60
    assert any(note.startswith("shortened from ") for note in document.notes)


def test_a_document_that_is_left_out_is_shown_with_the_reason(tmp_path):
    (document,) = shown_documents(rows_of(tmp_path, chat("x" * 100, "a")), recipe(max_length=60), 1)
    assert len(document.tokens) > 60
    assert document.notes == (f"not trained: longer than the limit ({len(document.tokens)} tokens, 60 allowed)",)


@pytest.mark.parametrize(("policy", "words"), [("error", "training refuses it: "), ("skip", "it is left out: ")])
def test_a_bad_row_is_shown_with_the_reason(policy, words):
    rows = [BadRow(where="rows.jsonl:7", what="no messages")]
    (document,) = shown_documents(rows, recipe(on_bad_row=policy), 1)
    assert (document.where, document.notes) == ("rows.jsonl:7", (f"{words}no messages",))


def test_turns_that_the_template_changes_later_are_documents_of_their_own(tmp_path):
    row = chat("q", "<t>x</t>a", "r", "<t>y</t>b")
    documents = shown_documents(rows_of(tmp_path, row), recipe(template=THINKING), 1)
    assert [[text for _, _, text in told(document) if text] for document in documents] == [
        ["<t>x</t>a<|im_end|>"],
        ["<t>y</t>b<|im_end|>"],
    ]
    assert documents[0].where.endswith(":1 (document 1 of 2)")
    assert "changes earlier turns" in documents[0].notes[0]
    assert [role for role, _, _ in told(documents[0])] == ["user", "assistant"]
    # Where the changed answer ends cannot be told from the text: it shares a part with the message behind it.
    assert [role for role, _, _ in told(documents[1])] == ["user", "assistant+user", "assistant"]


def test_rows_with_a_text_of_their_own_have_no_roles():
    row = Pieces(segments=(Segment(text="give", trained=False), Segment(text="take", trained=True)), where="a:1")
    (document,) = shown_documents([row], recipe(), 1)
    assert told(document) == [(None, "<bos>givetake<|im_end|>", "take<|im_end|>")]


def test_a_template_that_cannot_stop_after_a_message_joins_it_with_the_next(tmp_path):
    strict = (
        "{% if messages[0].role == 'system' %}{% if messages | length == 1 %}"
        "{{ raise_exception('a question must follow') }}{% endif %}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (document,) = shown_documents(rows_of(tmp_path, chat("q", "a", system="s")), recipe(template=strict), 1)
    assert [role for role, _, _ in told(document)] == ["system+user", "assistant"]


def test_only_as_many_rows_are_read_as_are_shown():
    def rows():
        yield Conversation(messages=chat("q", "a")["messages"], tools=None, form="chat", where="a:1")
        raise AssertionError("a second row was read")

    assert len(shown_documents(rows(), recipe(), 1)) == 1
