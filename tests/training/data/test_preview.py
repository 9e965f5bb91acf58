import numpy as np
from rich.text import Text

from skills_pipe.training.data.dataset import Example
from skills_pipe.training.data.preview import preview
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
