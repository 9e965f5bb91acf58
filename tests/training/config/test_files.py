"""Files inherit from files, and all of them from the packaged defaults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from skills_pipe.errors import ConfigError
from skills_pipe.training.config.files import load_layers, load_with_parents
from skills_pipe.training.config.origins import PACKAGED, Origins
from skills_pipe.training.config.yaml_text import load_yaml


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def tree(path):
    return OmegaConf.to_container(load_with_parents(path).tree)


def test_a_file_wins_over_its_parent_and_lists_are_replaced(tmp_path):
    write(tmp_path, parent="a: 1\nb: {x: 1, y: 2}\nl: [1, 2, 3]", child="defaults: parent.yaml\nb: {y: 3}\nl: [4]")
    assert tree(tmp_path / "child.yaml") == {"a": 1, "b": {"x": 1, "y": 3}, "l": [4]}


def test_a_later_parent_wins_over_an_earlier_one(tmp_path):
    write(tmp_path, one="a: 1\nb: 1", two="a: 2", child="defaults: [one.yaml, two.yaml]")
    assert tree(tmp_path / "child.yaml") == {"a": 2, "b": 1}
    write(tmp_path, child="defaults: [two.yaml, one.yaml]")
    assert tree(tmp_path / "child.yaml") == {"a": 1, "b": 1}


def test_parents_are_relative_to_the_file_that_names_them(tmp_path):
    write(
        tmp_path,
        grandparent="a: 1",
        inner__parent="defaults: ../grandparent.yaml\nb: 2",
        child=f"defaults: [inner/parent.yaml, {tmp_path}/absolute.yaml]",
        absolute="c: 3",
    )
    assert tree(tmp_path / "child.yaml") == {"a": 1, "b": 2, "c": 3}


def test_a_section_can_replace_its_parents(tmp_path):
    write(tmp_path, parent="b: {x: 1, y: 2}", child="defaults: parent.yaml\nb: {_override_: true, z: 3}")
    assert tree(tmp_path / "child.yaml") == {"b": {"z": 3}}
    write(tmp_path, child="defaults: parent.yaml\nb: {z: 3}")
    assert tree(tmp_path / "child.yaml") == {"b": {"x": 1, "y": 2, "z": 3}}


def test_interpolations_stay_open_until_everything_is_merged(tmp_path):
    write(tmp_path, parent="base: 1\nderived: ${base}", child="defaults: parent.yaml\nbase: 2")
    assert OmegaConf.to_container(load_with_parents(tmp_path / "child.yaml").tree, resolve=True)["derived"] == 2


def test_a_mandatory_key_of_a_child_keeps_the_parents_value(tmp_path):
    write(tmp_path, parent="a: 1", child="defaults: parent.yaml\na: ???")
    assert tree(tmp_path / "child.yaml") == {"a": 1}


def test_an_empty_file_changes_nothing(tmp_path):
    write(tmp_path, empty="# nothing\n")
    assert load_layers(tmp_path / "empty.yaml").tree == load_layers(None).tree


def test_a_circle_of_files_is_named(tmp_path):
    write(tmp_path, a="defaults: b.yaml", b="defaults: a.yaml")
    with pytest.raises(ConfigError, match=r"circle: .*a\.yaml -> .*b\.yaml -> .*a\.yaml"):
        load_with_parents(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "no valid YAML"),
        ("a: 1\na: 2", "duplicate key"),
        ("- a\n- b", "no mapping of keys"),
        ("3", "no mapping of keys"),
        ("just text", "no mapping of keys"),
        ("a: ${b", "cannot be used"),
        ("defaults: {a: b}", "defaults must be"),
        ("defaults: [1]", "defaults must be"),
        ("defaults: missing.yaml", "does not exist"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_line(tmp_path, text, message):
    write(tmp_path, bad=text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_with_parents(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            load_layers(path)


def test_an_own_optimizer_replaces_the_packaged_one_whole(tmp_path):
    write(tmp_path, own="policy: {optimizer: {name: torch.optim.SGD, kwargs: {lr: 0.1}}}")
    policy = load_layers(tmp_path / "own.yaml").tree["policy"]
    assert policy["optimizer"] == {"name": "torch.optim.SGD", "kwargs": {"lr": 0.1}}
    assert "betas" in load_layers(None).tree["policy"]["optimizer"]["kwargs"]


def test_a_key_is_found_in_the_file_and_line_that_decided_it(tmp_path):
    write(tmp_path, parent="sft:\n  seed: 1\n  val_period: 2", child="defaults: parent.yaml\nsft:\n\n  seed: 3")
    origins = Origins(files=load_layers(tmp_path / "child.yaml").files, overrides=())
    assert origins.where("sft.seed") == f"{tmp_path}/child.yaml:4"
    assert origins.where("sft.val_period") == f"{tmp_path}/parent.yaml:3"
    assert origins.where("sft.val_batches").startswith("the packaged sft.yaml, line ")
    line = int(origins.where("sft.val_batches").rpartition(" ")[2])
    assert PACKAGED.read_text().splitlines()[line - 1].strip().startswith("val_batches:")


NUMBERS = st.from_regex(r"[-+]?[0-9]{1,3}(_[0-9]{1,2})?(\.[0-9]{0,2})?([eE][-+]?[0-9]{1,2})?", fullmatch=True)
WORDS = [
    "null",
    "~",
    "",
    "yes",
    "on",
    "True",
    "2026-11-20",
    "1:30",
    "00:03:45:00",
    "1:00:00:00",
    ".inf",
    "0x1f",
    "010",
    "???",
]


@given(st.lists(st.one_of(NUMBERS, st.sampled_from(WORDS)), min_size=1, max_size=4))
def test_yaml_is_read_as_omegaconf_reads_it(tmp_path_factory, values):
    text = "\n".join(f"key{index}: {value}" for index, value in enumerate(values))
    path = tmp_path_factory.mktemp("yaml") / "file.yaml"
    path.write_text(text)
    assert repr(load_yaml(text)) == repr(OmegaConf.to_container(OmegaConf.load(path)))
