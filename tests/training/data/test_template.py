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
