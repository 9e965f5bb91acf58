"""The page for a browser: whole, by itself, and safe to open whatever the data says."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.preview.document import Document, Token
from skills_pipe.training.data.preview.page import page

VOID = {"meta", "input", "br"}


class Reader(HTMLParser):
    """Follows the tags of a page; ``shown`` is the text of <pre>, ids aside."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.shown, self.ids = [], [], [], "", []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-2:] == ["pre", "span"]:
            self.shown += data
        elif self.open[-1:] == ["i"]:
            self.ids.append(int(data))


def document(*texts, weight=1.0, role="user"):
    tokens = tuple(Token(id=index, text=text, weight=weight, role=role) for index, text in enumerate(texts))
    return Document(tokens=tokens, where="rows.jsonl:1", notes=("note <b>",))


def test_a_page_is_well_formed_and_shows_text_and_ids():
    read = Reader(page("t", [("rows", "1")], [document("a\n", " <b>", "&amp;"), document("\n\nx")]))
    assert read.open == []
    assert read.shown == "a\n <b>&amp;" + "\n\nx"
    assert read.ids == [0, 1, 2, 0]


@given(st.text(), st.text())
def test_nothing_of_the_data_becomes_a_tag(text, role):
    plain, read = (Reader(page("t", [], [document(said, role=who)])) for said, who in (("x", "y"), (text, role)))
    assert read.tags == plain.tags
    assert read.open == []


def test_the_check_would_find_text_that_is_not_escaped():
    broken = page("t", [], [document("x")]).replace(">x<", "><b>x</b><")
    assert Reader(broken).tags != Reader(page("t", [], [document("x")])).tags


def test_a_page_needs_nothing_else():
    read = Reader(page("t", [], [document("https://example.com/x.js")]))
    assert {"script", "link", "img", "iframe"}.isdisjoint(read.tags)
    assert {"src", "href"}.isdisjoint(name for name, _ in read.attributes)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


def test_weights_have_colours_of_their_own():
    classes = [
        [value for name, value in Reader(page("t", [], [document("x", weight=weight)])).attributes if name == "class"]
        for weight in (0.0, 1.0, 0.5)
    ]
    assert [found[-1] for found in classes] == ["t", "t on", "t part"]
