import numpy as np
from rich.text import Text

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.preview import preview
from skills_pipe.training.data.preview.document import Document, Token
from skills_pipe.training.data.preview.text import render
from tests.training.tiny import tiny_tokenizer


def example(prompt, answer):
    tokenizer = tiny_tokenizer()
    first, second = tokenizer.encode(prompt), tokenizer.encode(answer)
    mask = np.array([0] * len(first) + [1] * len(second), np.uint8)
    return Example(input_ids=np.array(first + second, np.int32), loss_mask=mask)


def test_what_is_trained_stands_in_brackets():
    assert preview(example("<bos>1+1?", "2<|im_end|>"), tiny_tokenizer()) == "<bos>1+1?⟦2<|im_end|>⟧"


def test_markup_shows_the_text_and_colours_what_is_trained():
    text = Text.from_markup(preview(example("[b] 1+1?", "[red]2"), tiny_tokenizer(), markup=True))
    assert text.plain == "[b] 1+1?[red]2"
    assert [(text.plain[span.start : span.end], str(span.style)) for span in text.spans] == [
        ("[b] 1+1?", "dim"),
        ("[red]2", "bold green"),
    ]


def shown(*parts, ids=False):
    tokens = tuple(Token(id=number, text=text, weight=weight, role=role) for number, text, weight, role in parts)
    return render(Document(tokens=tokens, where="rows.jsonl:1"), ids=ids)


PARTS = ((7, "1+1?", 0, "user"), (8, "2", 1, "assistant"), (9, "!", 0.5, "assistant"))


def test_a_document_is_shown_turn_by_turn():
    assert shown(*PARTS).plain == (
        "rows.jsonl:1: 3 tokens, 2 trained (66.7%)\nuser (1 token)\n1+1?\nassistant (2 tokens, 2 trained)\n⟦2⟧0.5×⟦!⟧"
    )


def test_ids_are_shown_when_asked_for():
    assert "ids: ⟦8⟧ ⟦9⟧" in shown(*PARTS, ids=True).plain
    assert "ids:" not in shown(*PARTS).plain


def test_data_cannot_steer_the_terminal():
    text = shown((1, "a\x1b]0;title\x07\x9b31m\u202eb\tc\n", 1, "us\x1ber")).plain
    assert not [c for c in text if (ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 or c == "\u202e"]
    assert "a␛]0;title␇" in text


def test_what_is_trained_is_coloured():
    text = shown(*PARTS)
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert styles["1+1?"] == "dim"
    assert styles["⟦2⟧"] == "bold green"
    assert styles["0.5×⟦!⟧"] == "bold yellow"
