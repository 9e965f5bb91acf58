"""Datasets that are classes of the user's: what they hold is trained like a file of the same rows."""

import json
import sys

import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.config import load_config
from skills_pipe.training.data.from_config import load_data
from skills_pipe.training.data.sources import read_rows
from skills_pipe.training.data.sources.configured import find_sources
from tests.training.tiny import tiny_tokenizer

MODULE = '''
class Task:
    task_name = "sums"
    prompt = "Compute {}"
    system_prompt = None

def chat(question, answer, **more):
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], **more}

class Rows:
    """As NeMo RL 0.5 has them."""
    def __init__(self, seed=0):
        self.formatted_ds = {
            "train": [chat("1+1", "2", task_name="sums"), chat("2+2", "4", task_name="sums")],
            "validation": (chat(str(n), "x") for n in range(3)),
        }
        self.task_spec = Task()

class Later:
    """As later releases have them."""
    task_name = "sums"
    def __init__(self, output_key, **keys):
        self.dataset = [chat(output_key, str(sorted(keys)))]

class Tools:
    def __init__(self):
        self.formatted_ds = {"train": [chat("q", "a", tools=[{"f": {"x": 1}}]), chat("q", "a", tools=[{"g": {}}])]}

class More(Rows):
    pass

class Asks:
    def __init__(self, colour, shape): ...

class Empty:
    pass

class Odd:
    def __init__(self):
        self.formatted_ds = {"train": [{"messages": object()}]}
'''


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "own_rows.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_rows", None)


def config(name, *overrides):
    return load_config(None, ["policy.model_name=none", f"data.dataset_name=own_rows.{name}", *overrides])


def messages(sources):
    return [[m["content"] for m in row.messages] for source in sources for row in read_rows(source)]


def test_both_splits_are_trained_and_validated_on():
    data = load_data(config("Rows"), tiny_tokenizer())
    assert len(data.train) == 2
    assert {name: len(dataset) for name, dataset in data.validation.items()} == {"Rows": 3}


def test_the_task_puts_its_prompt_around_questions_unless_the_configuration_does(tmp_path):
    assert messages(find_sources(config("Rows").data).all_train) == [["Compute 1+1", "2"], ["Compute 2+2", "4"]]
    (tmp_path / "prompt.txt").write_text("Add {}")
    own = config("Rows", f"data.prompt_file={tmp_path}/prompt.txt")
    assert messages(find_sources(own.data).all_train)[0] == ["Add 1+1", "2"]


def test_other_validation_data_wins(tmp_path):
    path = tmp_path / "val.jsonl"
    path.write_text('{"input": "q", "output": "a"}\n')
    assert list(find_sources(config("Rows", f"data.val_data_path={path}").data).validation) == ["val"]


def test_a_class_is_given_the_keys_that_it_asks_for():
    [[key, others]] = messages(find_sources(config("Later", "data.output_key=answer").data).all_train)
    assert key == "answer"
    assert "chat_key" in others
    assert "output_key" not in others


def test_tools_stay_as_they_are():
    sources = find_sources(config("Tools").data).all_train
    assert [row.tools for source in sources for row in read_rows(source)] == [[{"f": {"x": 1}}], [{"g": {}}]]


def test_on_request_they_gain_keys_as_those_of_a_file_do():
    sources = find_sources(config("Tools", "data.use_preserving_dataset=false").data).all_train
    tools = [row.tools for source in sources for row in read_rows(source)]
    assert tools == [[{"f": {"x": 1}, "g": None}], [{"f": None, "g": {}}]]


def several(tmp_path, *datasets):
    path = tmp_path / "several.yaml"
    path.write_text(f"policy: {{model_name: none}}\ndata: {{train: [{', '.join(datasets)}]}}\n")
    return find_sources(load_config(path, []).data)


def test_of_several_classes_each_is_validated_on(tmp_path):
    sources = several(tmp_path, "{dataset_name: own_rows.Rows}", "{dataset_name: own_rows.More}")
    assert {name: len(messages(files)) for name, files in sources.validation.items()} == {"Rows": 3, "More": 3}
    with pytest.raises(ConfigError, match="2 validation datasets are called 'a'"):
        several(tmp_path, "{dataset_name: own_rows.Rows, name: a}", "{dataset_name: own_rows.More, name: a}")


def test_rows_of_a_class_without_validation_can_be_set_aside():
    sources = find_sources(config("Tools", "data.split_validation_size=1").data)
    assert len(messages(sources.all_train)) == 1
    assert {name: len(messages(files)) for name, files in sources.validation.items()} == {"Tools": 1}


def test_the_same_rows_are_the_same_file(tmp_path):
    one, two = (find_sources(config("Rows").data).all_train[0].path for _ in range(2))
    assert one == two
    assert len(list((tmp_path / "cache" / "rows").iterdir())) == 2, "one for each split, nothing else"
    assert json.loads(one.read_text().splitlines()[0])["task_name"] == "sums"


@pytest.mark.parametrize(
    ("name", "overrides", "kind", "message"),
    [
        ("Absent", [], ConfigError, "own_rows has no 'Absent'"),
        ("Row", [], ConfigError, "own_rows has no 'Row' .*did you mean 'Rows'"),
        ("Asks", [], ConfigError, "asks for colour, shape, which nothing sets"),
        ("Empty", [], ConfigError, "has neither formatted_ds, rows by split, nor dataset"),
        ("Odd", [], DataError, r"the row of a dataset class is no JSON: .*train, row 1"),
        ("Rows", ["data.split_validation_size=1"], ConfigError, r"has validation rows of its own .*leave it out"),
        ("Rows", ["data.train_split=dev"], ConfigError, r"has no split 'dev' .*one of train, validation"),
    ],
)
def test_what_a_class_must_hold(name, overrides, kind, message):
    with pytest.raises(kind, match=message):
        find_sources(config(name, *overrides).data)


def test_a_module_that_is_not_there():
    with pytest.raises(ConfigError, match=r"cannot import own_row: .*PYTHONPATH"):
        find_sources(load_config(None, ["policy.model_name=none", "data.dataset_name=own_row.Rows"]).data)
