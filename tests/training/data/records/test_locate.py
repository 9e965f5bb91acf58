"""Paths of a configuration: files, folders, patterns; which files of a folder are a split."""

import json
from pathlib import Path

import pytest

from skills_pipe.errors import DataError
from skills_pipe.training.data.records.hub import is_hub_id
from skills_pipe.training.data.records.locate import Place
from skills_pipe.training.data.records.opening import open_records
from skills_pipe.training.data.records.splits import Wanted, files_of_split

SAVED = Path(__file__).parents[2] / "golden" / "saved"


def split(names, wanted=None, *, card=None, otherwise="train", subset=None):
    return files_of_split(names, card, Wanted(split=wanted, otherwise=otherwise, subset=subset, name="folder"))


def card(configs):
    return f"---\nconfigs: {json.dumps(configs)}\n---\ntext"


def test_a_file_is_itself(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.touch()
    assert Place(path=str(path), split="whatever").files() == [path]


def test_a_pattern_gives_its_files_in_order(tmp_path):
    for name in ("b.jsonl", "a.jsonl", "c.csv", "deep/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [file.name for file in Place(path=f"{tmp_path}/*.jsonl").files()]
    assert names == ["a.jsonl", "b.jsonl"]
    assert len(Place(path=f"{tmp_path}/**/*.jsonl").files()) == 3
    with pytest.raises(DataError, match="no file fits the pattern"):
        Place(path=f"{tmp_path}/*.parquet").files()


def test_a_folder_of_files_is_read_by_their_names(tmp_path):
    for name in ("train.jsonl", "val.jsonl", "notes.md", ".hidden.jsonl"):
        (tmp_path / name).touch()
    assert Place(path=str(tmp_path)).files() == [tmp_path / "train.jsonl"]
    assert Place(path=str(tmp_path), otherwise="validation").files() == [tmp_path / "val.jsonl"]


@pytest.mark.parametrize(
    ("folder", "place", "numbers"),
    [
        ("alone", {}, [0, 1, 2, 3, 4, 5]),
        ("with_splits", {}, [0, 1, 2, 3]),
        ("with_splits", {"otherwise": "validation"}, [4, 5]),
        ("with_splits", {"split": "validation"}, [4, 5]),
    ],
)
def test_a_folder_that_datasets_saved(folder, place, numbers):
    files = Place(path=str(SAVED / folder), **place).files()
    assert [row["n"] for file in files for _, row in open_records(file).read()] == numbers


def test_a_split_that_was_not_saved():
    with pytest.raises(DataError, match=r"there is no split 'test' .*one of train, validation"):
        Place(path=str(SAVED / "with_splits"), split="test").files()


@pytest.mark.parametrize("path", ["absent.jsonl", "a/b/c", "/absent/folder", "./org/name"])
def test_what_is_neither_a_file_nor_on_a_hub(path):
    with pytest.raises(DataError, match="there is no such data file"):
        Place(path=path).files()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", True),
        ("squad", True),
        ("org/name-2.1", True),
        ("org/rows.jsonl", False),
        ("/a", False),
        ("../a", False),
    ],
)
def test_ids_of_the_hub(text, expected):
    assert is_hub_id(text) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/test-00000-of-00001.parquet",
            ],
            2,
        ),
        (["train_1M-00000-of-00001.parquet", "train-00000-of-00001.parquet"], 1),
        (["training.csv", "dev.csv"], 1),
        (["train/a.jsonl", "train/b.jsonl", "validation/a.jsonl"], 2),
        (["a.jsonl", "b.jsonl"], 2),
        (["my-train-rows.jsonl", "my_eval_rows.jsonl"], 1),
    ],
)
def test_the_names_of_files_tell_their_split(names, expected):
    found = split(names)
    assert len(found) == expected
    assert set(found) <= set(names)
    assert all("test" not in name and "dev" not in name and "eval" not in name for name in found)


def test_splits_of_other_names():
    names = ["data/train_1M-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"]
    assert split(names, "train_1M") == names[:1]
    assert split(["dev.jsonl", "train.jsonl"], otherwise="validation") == ["dev.jsonl"]
    assert split(["test.jsonl"]) == ["test.jsonl"], "the only one"
    with pytest.raises(DataError, match=r"no split 'train' among several .*one of test, validation"):
        split(["test.jsonl", "val.jsonl"])


def test_folders_of_subsets_without_a_card():
    names = ["math/train.jsonl", "code/train.jsonl"]
    assert split(names, subset="code") == ["code/train.jsonl"]
    with pytest.raises(DataError, match=r"there is no subset 'art' .*one of code, math"):
        split(names, subset="art")


@pytest.mark.parametrize(
    ("data_files", "expected"),
    [
        ("*.jsonl", ["a.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "d/b.jsonl", "d/e/c.jsonl"]),
        ("d/**", ["d/b.jsonl", "d/e/c.jsonl"]),
        (["a.jsonl", "d/?.jsonl"], ["a.jsonl", "d/b.jsonl"]),
        ([{"split": "train", "path": "d/b.jsonl"}, {"split": "test", "path": "a.jsonl"}], ["d/b.jsonl"]),
    ],
)
def test_patterns_of_a_card(data_files, expected):
    names = ["a.jsonl", "d/b.jsonl", "d/e/c.jsonl"]
    assert split(names, card=card([{"config_name": "default", "data_files": data_files}])) == expected


def test_a_card_may_name_a_folder_only():
    names = ["one/train.jsonl", "two/train.jsonl", "two/test.jsonl"]
    configs = [{"config_name": name, "data_dir": name} for name in ("one", "two")]
    assert split(names, subset="two", card=card(configs)) == ["two/train.jsonl"]
    with pytest.raises(DataError, match=r"no subset is given .*one of one, two"):
        split(names, card=card(configs))


@pytest.mark.parametrize("text", ["no header", "---\n: [\n---\n", "---\nconfigs: 3\n---\n", "---\n"])
def test_a_card_that_says_nothing(text):
    assert split(["train.jsonl"], card=text) == ["train.jsonl"]


def test_an_empty_folder():
    with pytest.raises(DataError, match="there are no files of rows"):
        split(["notes.md"])
