"""Every kind of dataset of a configuration, read and tokenised: what is trained, in text."""

import json

import pytest

from skills_pipe.errors import ConfigError, DataError
from skills_pipe.training.config import load_config
from skills_pipe.training.data.from_config import load_data
from skills_pipe.training.data.preview import preview
from skills_pipe.training.data.template import PASSTHROUGH
from tests.training.data.hub import Hub
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_CACHE", str(tmp_path / "cache"))


def load(*overrides, text=None, folder=None):
    path = None
    if text is not None:
        path = folder / "own.yaml"
        path.write_text(text)
    return load_data(load_config(path, ["policy.model_name=none", *overrides]), tiny_tokenizer())


def ask_at(monkeypatch, url):
    """Let the client of the hub ask there."""
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def shown(dataset):
    """The documents, trained tokens between marks."""
    return [preview(dataset[index], tiny_tokenizer()) for index in range(len(dataset))]


@pytest.mark.parametrize(
    ("name", "row", "document"),
    [
        ("ResponseDataset", {"input": "q", "output": "a"}, "q⟦a⟧"),
        ("text", "some words", "s⟦ome words⟧"),
        ("text", ["q", "a", "r", "b"], "q⟦a⟧r⟦b⟧"),
        ("aligner_prompt_response", {"input": " q ", "output": "a"}, "q⟦ a⟧"),
        (
            "aligner_chat",
            {"system": "S", "conversations": [{"from": "User", "value": "q"}, {"from": "Assistant", "value": "a"}]},
            "␀System\nS\n␑User\nq\n␑Assistant\n⟦a\n␑⟧",
        ),
        (
            "squad",
            {"context": "c", "question": "q", "answers": {"text": ["a"]}},
            "<bos><|im_start|>system\nc<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>⟧\n",
        ),
    ],
)
def test_what_is_trained_of_each_kind(tmp_path, name, row, document):
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    assert shown(load(f"data.dataset_name={name}", f"data.train_data_path={path}").train) == [document]


@pytest.mark.parametrize(
    ("name", "row", "document", "stopped"),
    [
        ("text", "words", "<bos>⟦words<|im_end|>⟧", 1),
        ("text", ["q", "a", "r", "b<|im_end|>"], "<bos>q⟦a⟧r⟦b<|im_end|>⟧", 1),
        ("aligner_prompt_response", {"input": "q", "output": "a"}, "<bos>q⟦ a<|im_end|>⟧", 1),
        (
            "aligner_chat",
            {"system": "S", "conversations": [{"from": "User", "value": "q"}, {"from": "Assistant", "value": "a"}]},
            "<bos>␀System\nS\n␑User\nq\n␑Assistant\n⟦a\n␑⟧",
            1,
        ),
        (
            "aligner_chat",
            {
                "conversations": [
                    {"from": "A", "value": "p"},
                    {"from": "A", "value": "a"},
                    {"from": "User", "value": "q"},
                ]
            },
            "<bos>␀System\n\n␑A\np\n␑A\n⟦a\n␑⟧User\nq\n<|im_end|>",
            1,
        ),
    ],
)
def test_texts_begin_and_end_once(tmp_path, name, row, document, stopped):
    """A chat of NeMo-Aligner ends by its own token; what a format does not end, the end-of-text token does."""
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    data = load(f"data.dataset_name={name}", f"data.train_data_path={path}", "data.add_bos=true", "data.add_eos=true")
    assert shown(data.train) == [document]
    assert data.train.report.turns - data.train.report.turns_without_stop == stopped


def test_answers_without_an_end_are_told(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a"}])
    data = load("data.dataset_name=aligner_prompt_response", f"data.train_data_path={path}")
    assert "no answer ends with a stop token" in data.train.report.warnings()[0]


def test_alpaca_is_trained_after_its_own_text_with_the_end_token_on_request(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "Add.", "input": "1 2", "output": "3"}])
    data = load("data.dataset_name=alpaca", f"data.train_data_path={path}", "data.add_eos=true")
    assert data.template.text == PASSTHROUGH
    [document] = shown(data.train)
    assert document.endswith("\n\n### Input:\n1 2\n\n### Response:\n⟦3<|im_end|>⟧")


def test_keys_that_only_other_rows_have_appear_on_request_only(tmp_path):
    rows = [{"messages": [{"role": "assistant", "content": "a"}], "tools": [tool]} for tool in ({"x": 1}, {"y": 2})]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    template = tmp_path / "own.jinja"
    template.write_text(
        "{{ tools | tojson }}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    own = [f"data.train_data_path={path}", f"policy.tokenizer.chat_template={template}"]
    kept = load(*own)
    assert shown(kept.train) == ['[{"x": 1}]⟦a⟧', '[{"y": 2}]⟦a⟧']
    assert kept.notes == ()
    unified = load(*own, "data.use_preserving_dataset=false")
    assert shown(unified.train)[0] == '[{"x": 1, "y": null}]⟦a⟧'
    assert "set it to true to train on the rows as they are" in unified.notes[0]


def test_an_instruction_that_is_not_trained_on_is_told(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"instruction": "Add.", "input": "1 2", "output": "3"}])
    plain = load(f"data.train_data_path={path}")
    assert shown(plain.train) == ["1 2⟦3⟧"]
    assert "data.dataset_name=alpaca" in plain.warnings[0]
    assert load(f"data.train_data_path={path}", "data.dataset_name=alpaca").warnings == ()
    assert load(f"data.train_data_path={path}", "data.input_key=instruction").warnings == ()


def test_rows_set_aside_become_validation_data(tmp_path):
    path = write_jsonl(tmp_path / "chats.jsonl", chat_rows(40))
    data = load(f"data.train_data_path={path}", "data.split_validation_size=0.25")
    assert (len(data.train), {name: len(rows) for name, rows in data.validation.items()}) == (30, {"chats": 10})
    everything = shown(load(f"data.train_data_path={path}").train)
    assert sorted(shown(data.train) + shown(data.validation["chats"])) == sorted(everything)
    with pytest.raises(ConfigError, match="40 of 40 rows cannot be set aside"):
        load(f"data.train_data_path={path}", "data.split_validation_size=40")


def test_shares_of_several_datasets(tmp_path):
    for name, count in (("a", 10), ("b", 4)):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"input": name, "output": f"{name}{n}"} for n in range(count)])
    text = "data: {{train: [{{data_path: {0}/a.jsonl, weight: 0.5}}, {{data_path: {0}/b.jsonl, weight: 2}}]}}"
    data = load(text=text.format(tmp_path), folder=tmp_path)
    documents = shown(data.train)
    assert sum(document.startswith("a") for document in documents) == 5
    assert sorted(document for document in documents if document.startswith("b")) == sorted(
        [f"b⟦b{n}⟧" for n in range(4)] * 2
    )
    assert (data.train.report.rows_read, data.train.report.documents) == (14, 13)


def test_several_validation_sets(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", chat_rows(8))
    for name, count in (("math", 2), ("code", 3)):
        write_jsonl(tmp_path / f"{name}.jsonl", chat_rows(count))
    text = f"data: {{train_data_path: {train}, validation: [{{data_path: {tmp_path}/math.jsonl}}, "
    text += f"{{data_path: {tmp_path}/code.jsonl, name: programs}}]}}"
    data = load(text=text, folder=tmp_path)
    assert {name: len(rows) for name, rows in data.validation.items()} == {"math": 2, "programs": 3}


def test_files_of_a_folder_are_one_dataset(tmp_path):
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "train-b.csv").write_text("input,output\nq3,a3\n")
    write_jsonl(folder / "train-a.jsonl", [{"input": "q1", "output": "a1"}, {"input": "q2", "output": "a2"}])
    write_jsonl(folder / "validation.jsonl", [{"input": "v", "output": "w"}])
    data = load(f"data.train_data_path={folder}", f"data.val_data_path={folder}")
    assert shown(data.train) == ["q1⟦a1⟧", "q2⟦a2⟧", "q3⟦a3⟧"]
    assert shown(data.validation["rows"]) == ["v⟦w⟧"]


def test_bad_rows_of_tables_say_where(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("input,output\nq,a\nq,a,b\n")
    with pytest.raises(DataError, match=r"3 values for 2 columns \(.*rows\.csv:3\)"):
        load(f"data.train_data_path={path}")
    data = load(f"data.train_data_path={path}", "data.on_bad_row=skip")
    assert (len(data.train), data.train.report.dropped) == (1, {"bad row": 1})


@pytest.mark.parametrize("output_key", [None, "generated_solution"])
def test_openmathinstruct_is_its_million_problems_with_their_answers(tmp_path, monkeypatch, output_key):
    rows = [{"problem": f"p{n}", "expected_answer": f"e{n}", "generated_solution": f"s{n}"} for n in range(40)]
    names = ("train", "train_1M", "train_2M", "train_5M")
    files = {
        f"data/{name}-00000-of-00001.jsonl": "".join(
            json.dumps({**row, "problem": f"{name} {row['problem']}"}) + "\n" for row in rows
        ).encode()
        for name in names
    }
    chosen = [f"data.output_key={output_key}"] if output_key else []
    with Hub({"nvidia/OpenMathInstruct-2": {"main": files}}).serving() as hub:
        ask_at(monkeypatch, hub.url)
        name = "data.dataset_name=OpenMathInstruct-2"
        data = load(name, f"++data.default.download_dir={tmp_path}/hub", *chosen)
    ((name, held_out),) = data.validation.items()
    assert (name, len(data.train), len(held_out)) == ("OpenMathInstruct-2", 38, 2)
    letter = "s" if output_key else "e"
    expected = [f"train_1M p{n}⟦{letter}{n}⟧" for n in range(40)]
    assert sorted([*shown(data.train), *shown(held_out)]) == sorted(expected)


def test_a_dataset_by_name_is_downloaded_and_read(tmp_path, monkeypatch):
    rows = [{"context": "c", "question": f"q{n}", "answers": {"text": [f"a{n}"]}} for n in range(3)]
    lines = ["".join(json.dumps(row) + "\n" for row in part).encode() for part in (rows[:2], rows[2:])]
    files = {"train.jsonl": lines[0], "validation.jsonl": lines[1]}
    with Hub({"rajpurkar/squad": {"main": files}}).serving() as hub:
        ask_at(monkeypatch, hub.url)
        data = load("data.dataset_name=squad", f"++data.default.download_dir={tmp_path}/hub")
    assert (len(data.train), {name: len(found) for name, found in data.validation.items()}) == (2, {"squad": 1})
    assert shown(data.validation["squad"])[0].endswith("q2<|im_end|>\n<|im_start|>assistant\n⟦a2<|im_end|>⟧\n")
