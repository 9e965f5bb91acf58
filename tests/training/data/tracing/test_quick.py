"""A template that is filled in gives what Jinja gives, for every template and conversation, or leaves it to Jinja."""

from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.utils import chat_template_utils

from skills_pipe.errors import DataError
from skills_pipe.training.data.chunk import DataSettings, mask_rules
from skills_pipe.training.data.mask import make_samples
from skills_pipe.training.data.rows import Conversation
from skills_pipe.training.data.template import ChatTemplate, resolve_template
from skills_pipe.training.data.tracing import quick
from skills_pipe.training.data.tracing.quick import QuickTemplate
from skills_pipe.training.data.tracing.symbol import Symbol
from tests.training.data import golden
from tests.training.data.families import TEMPLATES, tokenizer, unmarked
from tests.training.tiny import CHAT_TEMPLATE

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

R1 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}{% set content = m.content %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + eos_token }}{% else %}{{ '<|User|>' ~ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
INTRICATE = (
    "{% macro turn(role, text) %}[{{ role }}]{{ text | trim }}{% endmacro %}"
    "{% set ns = namespace(first='', count=0) %}"
    "{% for m in messages %}{% if m.content is string and m.content.startswith('It') %}"
    "{% set ns.first = m.content %}{% set ns.count = ns.count + 1 %}{% endif %}{% endfor %}"
    "{{ ns.count }}{{ ns.first | upper }}"
    "{% for m in messages[::-1] %}{% set text %}<{{ m.content }}>{% endset %}"
    "{{ turn(m.role, text ~ loop.index) }}{{ m.content | tojson }}"
    "{% if m.content.rstrip().endswith(('4.', 'b')) or m.content == 'user\n' %}!{% endif %}"
    "{% for part in m.content.split('\n') %}({{ part }}){% endfor %}"
    "{% if m.content in ['é', '  '] and not loop.last %}~{% endif %}{% endfor %}"
    "{{ messages | map(attribute='role') | list | length }}"
    "{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ m.content or 'nothing' }}{% endfor %}"
)
EVERY = {
    **TEMPLATES,
    **{f"{name}, not marked": unmarked(text) for name, text in TEMPLATES.items()},
    "tiny": CHAT_TEMPLATE,
    "R1": R1,
    "intricate": INTRICATE,
    "golden qwen3": golden.tokenizer("qwen3").chat_template,
    "golden llama3": golden.tokenizer("llama3").chat_template,
}

UNTRACED = {
    "the length of a content": "{{ messages[0].content | length }}",
    "its letters": "{% for letter in messages[0].content %}{{ letter }}.{% endfor %}",
    "a slice of it": "{{ messages[0].content[1:] }}",
    "all messages as JSON": "{{ messages | tojson }}",
    "a list written out": "{{ messages }}",
    "a format": "{{ '%s!' % messages[0].content }}{{ '{}?'.format(messages[0].content) }}",
    "a content as a key": "{{ {'a': 1}[messages[0].content] }}{{ [1, 2][messages[0].content] }}",
    "a content in a text": "{{ 'x' if messages[0].content in 'some text' }}",
    "an attribute that text may not have": "{{ 1 if messages[0].content.items is defined else 2 }}",
    "an item of it": "{{ messages[0].content[0].type is defined }}",
    "an order": "{{ messages[0].content < 'm' }}",
    "what is neither": "{{ messages[0].content is lower }}{{ messages[0].content is sameas messages[0].content }}",
    "a join": "{{ messages | map(attribute='content') | join('+') }}",
    "times": "{{ messages[0].content * 2 }}",
    "chance": "{{ [messages[0].role] | random }}",
}

fragments = st.sampled_from(
    [
        *("It is 4.", " b", "\n", "\n\n", "  ", "é", "文", "🦊", "1 + 1", "user\n", "[/INST]", "", "m"),
        *("<think>", "</think>", "<think>\nwell\n</think>\n\n", "<|im_end|>", "{{ x }}", "<tool_response>"),
    ]
)
contents = st.lists(fragments, max_size=4).map("".join)


@st.composite
def conversations(draw):
    messages = [{"role": "system", "content": draw(contents)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(contents)})
        messages.append({"role": "assistant", "content": draw(contents)})
    if draw(st.integers(0, 5)) == 0:
        messages[-1] |= {"tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]}
    tools = draw(st.sampled_from([None, None, [TOOL], []]))
    return Conversation(messages=messages, tools=tools, form="chat", where="test")


def outcome(make):
    try:
        return make()
    except DataError as error:
        return f"refused: {error}"


def both(template, messages, tools):
    """All that is asked of a template about a conversation."""
    return [
        outcome(lambda: template.render(messages, tools)),
        outcome(lambda: template.render(messages[:-1], tools, prompt=True)),
        outcome(lambda: template.render_marked(messages, tools)),
    ]


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25)
@given(rows=st.lists(conversations(), min_size=1, max_size=6))
def test_texts_and_marks_are_those_of_jinja(name, rows):
    template = resolve_template(EVERY[name], tokenizer(), {"enable_thinking": False} if len(rows) % 2 else None, None)
    filled_in = QuickTemplate(template)
    for row in (*rows, *rows):
        assert both(filled_in, row.messages, row.tools) == both(template, row.messages, row.tools)
    assert filled_in.misread == 0


@pytest.mark.parametrize("name", EVERY)
def test_every_template_of_ours_is_filled_in_and_not_only_rendered(name):
    filled_in = QuickTemplate(resolve_template(EVERY[name], tokenizer(), None, None))
    for number in range(20):
        messages = [{"role": "user", "content": f"q{number}"}, {"role": "assistant", "content": f"a{number}"}]
        filled_in.render(messages, None)
    assert (filled_in.filled_in, filled_in.rendered) == (19, 1)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=10)
@given(rows=st.lists(conversations(), min_size=2, max_size=4))
def test_documents_are_the_same_either_way(name, rows):
    template = resolve_template(EVERY[name], tokenizer(), None, None)
    filled_in = QuickTemplate(template)
    for changes in ({}, {"only_final": True}, {"answers_only": False}, {"train_on_header": True}):
        rules = mask_rules(tokenizer(), DataSettings(max_length=1000, **changes))
        for row in rows:
            expected = outcome(lambda row=row, rules=rules: make_samples(row, template, rules))
            assert outcome(lambda row=row, rules=rules: make_samples(row, filled_in, rules)) == expected


@pytest.mark.parametrize("name", UNTRACED)
def test_what_cannot_be_followed_is_left_to_jinja(name):
    template = ChatTemplate(text=UNTRACED[name])
    filled_in = QuickTemplate(template)
    for content in ("some", "a", "It", "some"):
        messages = [{"role": "user", "content": content}]
        made = outcome(lambda messages=messages: filled_in.render(messages, None))
        assert made == outcome(lambda messages=messages: template.render(messages, None))
    assert (filled_in.filled_in, filled_in.misread) == (0, 0)


def test_the_date_is_asked_each_time(monkeypatch):
    template = ChatTemplate(text="{{ strftime_now('%d %b') }}: {{ messages[0].content }}")
    filled_in = QuickTemplate(template)
    row = [{"role": "user", "content": "q"}]
    assert filled_in.render(row, None) == filled_in.render(row, None) == template.render(row, None)
    assert filled_in.filled_in == 1

    class Later(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2031, 1, 2)

    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert filled_in.render(row, None) == "02 Jan: q"


def test_marks_inside_what_is_kept_for_later_are_left_to_jinja():
    text = "{% set kept %}{% generation %}{{ messages[0].content }}{% endgeneration %}{% endset %}a{{ kept }}"
    template = ChatTemplate(text=text)
    filled_in = QuickTemplate(template)
    for content in ("one", "two", "three"):
        row = [{"role": "assistant", "content": content}]
        assert filled_in.render_marked(row, None) == template.render_marked(row, None)
    assert filled_in.filled_in == 0


def test_variables_that_are_no_plain_values_are_left_to_jinja():
    filled_in = QuickTemplate(
        ChatTemplate(text="{{ x }}{{ messages[0].content }}", variables={"x": datetime(2026, 1, 1)})
    )
    row = [{"role": "user", "content": "q"}]
    assert filled_in.render(row, None) == filled_in.render(row, None)
    assert filled_in.filled_in == 0


def test_a_template_of_very_many_kinds_stops_being_traced(monkeypatch):
    monkeypatch.setattr(quick, "_MOST", 3)
    filled_in = QuickTemplate(
        ChatTemplate(text="{% for part in messages[0].content.split() %}[{{ part }}]{% endfor %}")
    )
    for words in (1, 2, 3, 4, 5, 1, 2, 3, 4, 5):
        assert filled_in.render([{"role": "user", "content": "w " * words}], None) == "[w]" * words
    assert (filled_in.filled_in, filled_in.rendered) == (3, 7)


# Controls: what the comparison with Jinja would find


def test_kinds_that_cannot_be_followed_are_not_remembered_without_end(monkeypatch):
    monkeypatch.setattr(quick, "_MOST", 5)
    template = ChatTemplate(text="{{ messages[0].content | length }}{{ tools | tojson }}")
    traced = QuickTemplate(template)
    for number in range(20):
        row = [{"role": "user", "content": "q"}], [{"name": f"tool {number}"}]
        assert traced.render(*row) == template.render(*row)
    assert len(traced._untraceable) == 5


def test_a_question_that_is_not_written_down_gives_other_texts(monkeypatch):
    monkeypatch.setattr(Symbol, "__contains__", lambda self, part: False)
    template = resolve_template(R1, tokenizer(), None, None)
    filled_in = QuickTemplate(template)
    rows = [[{"role": "assistant", "content": text}] for text in ("a", "<think>t</think>b")]
    assert [filled_in.render(row, None) for row in rows] != [template.render(row, None) for row in rows]


def test_a_trace_that_gives_another_text_than_jinja_is_not_used(monkeypatch):
    monkeypatch.setattr(Symbol, "__contains__", lambda self, part: True)
    template = resolve_template(R1, tokenizer(), None, None)
    filled_in = QuickTemplate(template)
    for content in ("a </think> b", "<think>t", "t"):
        row = [{"role": "assistant", "content": content}]
        filled_in.render(row, None)
    monkeypatch.setattr(Symbol, "__radd__", lambda self, other: self)
    row = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    other = QuickTemplate(
        resolve_template("{% for m in messages %}{{ 'x' + m.content }}{% endfor %}", tokenizer(), None, None)
    )
    assert [other.render(row, None), other.render(row, None)] == ["xqxa", "xqxa"]
    assert (other.misread, other.filled_in) == (1, 0)
