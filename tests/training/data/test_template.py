import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.template import PASSTHROUGH, resolve_template
from tests.training.tiny import CHAT_TEMPLATE, tiny_tokenizer

MESSAGES = [{"role": "user", "content": "IN"}, {"role": "assistant", "content": "OUT"}]


def resolve(setting, form="chat", tokenizer=None, **variables):
    return resolve_template(setting, tokenizer or tiny_tokenizer(), variables, form)


def test_default_is_the_tokenizers_own_in_any_case():
    tokenizer = tiny_tokenizer()
    for setting in ("default", "DEFAULT"):
        text = resolve(setting, tokenizer=tokenizer).render(MESSAGES, None)
        assert text == tokenizer.apply_chat_template(MESSAGES, tokenize=False)


def test_null_joins_the_contents():
    assert resolve(None).render(MESSAGES, None) == "INOUT"


def test_a_template_is_given_as_text_or_as_a_file(tmp_path):
    text = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    file = tmp_path / "own.jinja"
    file.write_text(text)
    assert resolve(text).render(MESSAGES, None) == resolve(str(file)).render(MESSAGES, None) == "[user]IN[assistant]OUT"


def test_variables_and_special_tokens_reach_the_template():
    template = resolve("{{ bos_token }}{{ mood }}{{ messages[0].content }}", mood="calm ")
    assert template.render(MESSAGES, None) == "<bos>calm IN"


def test_tools_reach_the_template_and_null_keys_do_not():
    template = resolve("{{ tools | tojson }}{% if messages[0].name is defined %}named{% endif %}")
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    message = {"role": "user", "content": "IN", "name": None}
    assert template.render([message], [tool]) == '[{"type": "function", "function": {"name": "f", "parameters": {}}}]'


@pytest.mark.parametrize(("form", "text"), [("pair", PASSTHROUGH), ("chat", CHAT_TEMPLATE)])
def test_inferred_from_the_form_of_the_first_row(form, text):
    template = resolve("infer_from_data", form)
    assert (template.text, template.form) == (text, form)


def test_other_settings_allow_rows_of_any_form():
    assert resolve("default").form is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("{% for m in messages %}", r"the chat template is not Jinja: .*line 1 \(policy.tokenizer.chat_template\)"),
        ("defualt", r"'defualt' is no chat template .*did you mean 'default'\?"),
        ("absent.jinja", "cannot read absent.jinja: No such file"),
    ],
)
def test_what_is_no_template_is_an_error(setting, message):
    with pytest.raises(DataError, match=message):
        resolve(setting)


def test_a_tokenizer_without_template_has_no_default():
    with pytest.raises(DataError, match="the tokenizer has no chat template of its own"):
        resolve("default", tokenizer=tiny_tokenizer(chat_template=None))


def test_rows_with_messages_and_input_settle_no_template():
    with pytest.raises(DataError, match="the chat template cannot be inferred"):
        resolve("infer_from_data", "both")


# Templates come from the hub: they run in a sandbox, and whatever they do wrong is a row that cannot be used


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ''.__class__.__mro__ }}", "'__class__' of 'str' object is unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "'__init__' of 'type' object is unsafe"),
        ("{{ lipsum.__globals__['os'].popen('id').read() }}", "'__globals__' of 'function' object is unsafe"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{{ messages[0].update({'role': 'x'}) }}", "'update' of 'dict' object is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ 1 // 0 }}", "division"),
        ("{{ messages[0].content.missing() }}", "has no attribute 'missing'"),
        ("{{ messages[0].content + 1 }}", "str"),
    ],
)
def test_a_template_reaches_nothing_but_its_variables(text, message):
    with pytest.raises(DataError, match=f"the chat template refuses the row: .*{message}"):
        resolve(text).render(MESSAGES, None)


def test_format_strings_reach_no_attributes_either():
    text = "{{ '{0.__class__}'.format(messages) }}{{ raise_exception.__globals__ }}"
    assert resolve(text).render(MESSAGES, None) == ""
    # The control: what Python itself would have written there.
    assert f"{MESSAGES.__class__}" == "<class 'list'>"


def test_rows_are_not_changed_by_rendering():
    before = [dict(message) for message in MESSAGES]
    text = "{% set messages = messages + [{'role': 'user', 'content': 'more'}] %}{{ messages | length }}"
    assert resolve(text).render(MESSAGES, None) == "3"
    assert before == MESSAGES


# Tokenizers with several templates

NAMED = {
    "default": "{{ messages[0].content }}",
    "tool_use": "{{ tools | length }}{{ messages[0].content }}",
    "rag": "R",
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize("tools", [None, [], [TOOL]])
def test_of_several_templates_rows_with_tools_get_theirs_as_from_transformers(tools):
    tokenizer = tiny_tokenizer(chat_template=NAMED)
    expected = tokenizer.apply_chat_template(MESSAGES, tools=tools, tokenize=False)
    assert resolve("default", tokenizer=tokenizer).render(MESSAGES, tools) == expected
    assert expected == ("IN" if tools is None else f"{len(tools)}IN")


def test_a_tokenizer_gets_back_the_templates_that_it_was_trained_with():
    template = resolve("default", tokenizer=tiny_tokenizer(chat_template=NAMED))
    assert template.for_tokenizer() == {"default": NAMED["default"], "tool_use": NAMED["tool_use"]}
    assert resolve("rag", tokenizer=tiny_tokenizer(chat_template=NAMED)).for_tokenizer() == "R"


def test_one_of_several_templates_is_chosen_by_its_name():
    tokenizer = tiny_tokenizer(chat_template=NAMED)
    assert resolve("rag", tokenizer=tokenizer).render(MESSAGES, [TOOL]) == "R"
    with pytest.raises(DataError, match="did you mean 'tool_use'"):
        resolve("tool_user", tokenizer=tokenizer)


def test_several_templates_without_a_default_are_named():
    tokenizer = tiny_tokenizer(chat_template={"rag": "R", "tool_use": "T"})
    with pytest.raises(DataError, match=r"several chat templates and no default: rag, tool_use .*one of these names"):
        resolve("default", tokenizer=tokenizer)
