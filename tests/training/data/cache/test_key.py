"""A cached data set is found again by what it was made from, and by nothing else."""

import os
from dataclasses import dataclass, fields, replace

import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset
from skills_pipe.training.data.cache import content, key
from skills_pipe.training.data.cache.content import Contents
from skills_pipe.training.data.cache.key import cache_key
from skills_pipe.training.data.chunk import Recipe
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.sources.conversations import Conversations
from skills_pipe.training.data.sources.holdout import hold_out
from skills_pipe.training.data.template import resolve_template
from skills_pipe.training.data.workers.pool import encode_in_order
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl


@pytest.fixture
def rows(tmp_path):
    return write_jsonl(tmp_path / "rows.jsonl", chat_rows(20))


def recipe(*, chat_template="default", tokenizer=None, kwargs=None, **settings):
    tokenizer = tokenizer or tiny_tokenizer()
    template = resolve_template(chat_template, tokenizer, kwargs, "chat")
    return Recipe(tokenizer=tokenizer, template=template, settings=DataSettings(**{"max_length": 200} | settings))


def key_of(tmp_path, *sources, made=None):
    return cache_key(sources, made or recipe(), Contents(tmp_path / "contents"))


def test_equal_data_have_one_key_wherever_they_lie(tmp_path, rows):
    copy = tmp_path / "elsewhere.jsonl"
    copy.write_bytes(rows.read_bytes())
    assert key_of(tmp_path, DataSource(path=rows)) == key_of(tmp_path, DataSource(path=copy))


def test_everything_that_shapes_a_token_or_a_mask_changes_the_key(tmp_path, rows, monkeypatch):
    source = DataSource(path=rows)
    # The same size, so that nothing but the content tells.
    other = tmp_path / "other.jsonl"
    other.write_bytes(rows.read_bytes().replace(b"What", b"Whaz", 1))
    (train, _), *_ = hold_out([20], 5, 0)
    larger = tiny_tokenizer()
    larger.add_tokens(["new"])
    text_for_special = tiny_tokenizer()
    text_for_special.split_special_tokens = True
    keys = [
        key_of(tmp_path, source),
        key_of(tmp_path, source, made=recipe(tokenizer=text_for_special)),
        key_of(tmp_path, DataSource(path=other)),
        key_of(tmp_path, source, source),
        key_of(tmp_path, replace(source, format=Conversations(system_prompt="s"))),
        key_of(tmp_path, replace(source, part=train)),
        key_of(tmp_path, replace(source, preserving=False)),
        key_of(tmp_path, source, made=recipe(chat_template=None)),
        key_of(tmp_path, source, made=recipe(kwargs={"thinking": True})),
        key_of(tmp_path, source, made=recipe(tokenizer=larger)),
        key_of(tmp_path, source, made=recipe(max_length=100)),
        key_of(tmp_path, source, made=recipe(overlong="truncate")),
        key_of(tmp_path, source, made=recipe(only_final=True)),
    ]
    monkeypatch.setattr(key, "_program", lambda: {**key.STEPS, "documents": key.STEPS["documents"] + 1})
    keys.append(key_of(tmp_path, source))
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_somebody_did_with_the_tokenizer_before_does_not_change_the_key(tmp_path, rows):
    used = tiny_tokenizer()
    used("x" * 9, truncation=True, max_length=4, padding="max_length", split_special_tokens=True)
    assert key_of(tmp_path, DataSource(path=rows), made=recipe(tokenizer=used)) == key_of(
        tmp_path, DataSource(path=rows)
    )


OTHER = {int: 7, str: "other", type(None): "other"}
"""Another value, by the type of a default; of a switch its opposite."""


def another(value):
    return not value if isinstance(value, bool) else OTHER[type(value)]


@pytest.mark.parametrize("field", fields(DataSettings), ids=lambda field: field.name)
def test_each_setting_changes_the_key(tmp_path, rows, field):
    made = recipe()
    other = replace(made.settings, **{field.name: another(getattr(made.settings, field.name))})
    source = DataSource(path=rows)
    assert key_of(tmp_path, source, made=replace(made, settings=other)) != key_of(tmp_path, source, made=made)


@pytest.mark.parametrize("field", fields(Conversations), ids=lambda field: field.name)
def test_each_key_of_rows_changes_the_key(tmp_path, rows, field):
    plain = Conversations()
    other = replace(plain, **{field.name: another(getattr(plain, field.name))})
    assert key_of(tmp_path, DataSource(path=rows, format=other)) != key_of(tmp_path, DataSource(path=rows))


@dataclass(frozen=True)
class OfTheUser:
    def rows(self, value, where):
        yield from Conversations().rows(value, where)


def test_rows_read_by_code_of_the_user_have_no_key_and_are_read_again(tmp_path, rows):
    source = DataSource(path=rows, format=OfTheUser())
    assert key_of(tmp_path, source) is None
    made, cache = recipe(), tmp_path / "cache"
    parts = (made.tokenizer, made.template, made.settings, BuildOptions(cache=cache))
    assert len(build_dataset([source], *parts)) == 20
    assert not (cache / "tokenised").exists()


def test_a_data_set_is_made_once_and_again_when_a_row_changes(tmp_path, rows, monkeypatch):
    made, cache = recipe(), tmp_path / "cache"
    parts = (made.tokenizer, made.template, made.settings, BuildOptions(cache=cache))
    first = build_dataset([DataSource(path=rows)], *parts)
    with monkeypatch.context() as patch:
        patch.setattr("skills_pipe.training.data.build.encode_in_order", None)
        assert build_dataset([DataSource(path=rows)], *parts).fingerprint == first.fingerprint
        with open(rows, "a") as file:
            file.write(rows.read_text().splitlines()[0] + "\n")
        with pytest.raises(TypeError):
            build_dataset([DataSource(path=rows)], *parts)
    assert len(build_dataset([DataSource(path=rows)], *parts)) == 21


def test_rows_that_change_while_they_are_read_are_not_kept(tmp_path, rows, monkeypatch):
    made, cache = recipe(), tmp_path / "cache"
    parts = (made.tokenizer, made.template, made.settings, BuildOptions(cache=cache))
    whole = rows.read_bytes()

    def while_somebody_writes(*arguments, **keys):
        yield from encode_in_order(*arguments, **keys)
        rows.write_bytes(whole.replace(b"What", b"Whaz"))

    with monkeypatch.context() as patch:
        patch.setattr("skills_pipe.training.data.build.encode_in_order", while_somebody_writes)
        with pytest.raises(DataError, match=r"the file was changed while it was read \(.*rows.jsonl\): start again"):
            build_dataset([DataSource(path=rows)], *parts)
    rows.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr("skills_pipe.training.data.build.encode_in_order", None)
        with pytest.raises(TypeError):  # nothing was kept: it is made again
            build_dataset([DataSource(path=rows)], *parts)


def test_a_hash_is_remembered_until_the_file_is_touched(tmp_path, rows, monkeypatch):
    taken = []
    monkeypatch.setattr(content, "sha256", lambda path: taken.append(path) or path.read_text())
    monkeypatch.setattr(content, "_SETTLED_SECONDS", -1e9)
    contents = Contents(tmp_path / "contents")
    assert contents.digest(rows) == contents.digest(rows) == rows.read_text()
    assert len(taken) == 1
    state = rows.stat()
    rows.write_text(rows.read_text().replace("What", "Whaz"))
    os.utime(rows, ns=(state.st_atime_ns, state.st_mtime_ns))
    # Size and time of change are as before; the inode's own time is not.
    assert contents.digest(rows) == rows.read_text()
    assert len(taken) == 2


def test_the_hash_of_a_file_that_was_just_written_is_not_remembered(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(content, "_SETTLED_SECONDS", 1e9)
    Contents(tmp_path / "contents").digest(rows)
    assert not (tmp_path / "contents").exists()
