"""The programs, with files as they are: what they print, write and end with."""

import json

import pytest

from skills_pipe.training.data.doctor.__main__ import main as doctor
from skills_pipe.training.data.preview.__main__ import main as preview
from tests.training.data.looking import chat
from tests.training.tiny import chat_rows, write_jsonl

SMALL = "++policy.train_global_batch_size=8"


@pytest.fixture
def files(tmp_path, tiny_model_folder):
    write_jsonl(tmp_path / "rows.jsonl", [chat(f"q{n}", f"a{n}") for n in range(30)])
    write_jsonl(tmp_path / "val.jsonl", [chat(f"r{n}", f"b{n}") for n in range(9)])
    return [str(tmp_path / "rows.jsonl"), f"--hf_model={tiny_model_folder}", f"--validation_data={tmp_path}/val.jsonl"]


def test_a_doctor_without_findings_ends_with_0(files, capsys):
    assert doctor([*files, SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "training data: looked at: all 30 rows" in lines
    assert "validation data: documents: 9" in lines
    assert "an epoch: steps: 3 of 8 documents, 219 tokens on average" in lines
    assert "an epoch: left over: 6 documents, which fill no step" in lines
    assert lines[-1] == "nothing to complain about"


def test_a_doctor_with_an_error_ends_with_1(files, tmp_path, capsys):
    (tmp_path / "rows.jsonl").open("a").write("{\n")
    assert doctor([*files, SMALL]) == 1
    assert f"({tmp_path}/rows.jsonl:31)" in capsys.readouterr().out
    assert doctor([*files, SMALL, "++data.on_bad_row=skip"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["++data.ad_bos=true"], "unknown key data.ad_bos"),
        (["--lenghts=3"], "'--lenghts=3' is neither an option nor ++key=value"),
        (["++policy.model_name=nowhere/nothing", "++policy.tokenizer.name=/nowhere"], "no tokenizer in '/nowhere'"),
        (["++data.train_data_path=/nowhere.jsonl"], "/nowhere.jsonl"),
    ],
)
def test_a_mistake_ends_with_2_and_one_line(files, words, message, capsys):
    for program in (doctor, preview):
        assert program([*files, *words]) == 2
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert message in told
        assert "Traceback" not in told


def test_the_positions_of_the_model_bound_what_is_suggested(files, capsys):
    short = "++policy.hf_config_overrides.max_position_embeddings=24"
    assert doctor([*files, SMALL, short]) == 0
    told = capsys.readouterr().out
    assert "warning: 30 documents are longer than the 24 positions that the model was made for" in told
    assert "suggested limit: 24 tokens" in told
    assert "suggested limit: 24 tokens" not in (doctor([*files, SMALL]), capsys.readouterr().out)[1]


@pytest.mark.parametrize("program", [doctor, preview])
def test_a_model_that_is_not_named_is_asked_for_by_its_option(files, program, capsys):
    rows, *_ = files
    for words in ([rows], []):
        assert program(words) == 2
        told = capsys.readouterr().err
        assert "policy.model_name is not set" in told
        assert ": add --hf_model=PATH or --hf_model=ID\n" in told
    assert program([rows, "++data.ad_bos=true", "++policy.model_name=m"]) == 2
    assert "--hf_model" not in capsys.readouterr().err


def test_one_step_is_no_steps_and_a_full_epoch_leaves_nothing_over(files, capsys):
    assert doctor([*files, "++policy.train_global_batch_size=30", "++sft.max_num_epochs=1"]) == 0
    told = capsys.readouterr().out
    assert "an epoch: training: 1 step, 1.00 epochs\n" in told
    assert "left over" not in told


def test_json_is_all_that_is_printed(files, tmp_path, capsys):
    assert doctor([*files, SMALL, "--json", f"--png={tmp_path}/a.png", "--lengths=64,32"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["train"]["report"]["documents"] == told["train"]["documents_in_all"] == 30
    assert told["validation"]["rows"] == 9
    assert [plan["limit"] for plan in told["lengths"]] == [32, 64]
    assert told["findings"] == []
    assert told["leakage"]["rows"] == 0
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_sample_says_that_it_is_one(files, capsys):
    assert doctor([*files, SMALL, "--max_rows=10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "training data: looked at: 10 of 30 rows, from 10 places spread over the data" in lines
    assert "an epoch: documents: about 30" in lines


def test_a_preview_shows_rows_and_writes_a_page(files, tmp_path, capsys):
    assert preview([*files, "--num_samples=2", "--first=3", f"--html={tmp_path}/a.html", "--ids"]) == 0
    told = capsys.readouterr().out
    assert f"{tmp_path}/rows.jsonl:4: 26 tokens, 3 trained (11.5%)" in told
    assert "⟦a3<|im_end|>⟧" in told
    assert "⟦a4<|im_end|>⟧" in told
    assert "⟦a5<|im_end|>⟧" not in told
    page = (tmp_path / "a.html").read_text()
    assert page.count("<article>") == 2
    assert [path.name for path in tmp_path.iterdir() if "tmp" in path.name] == []


def test_a_preview_of_the_validation_data(files, capsys):
    assert preview([*files, "--num_samples=1", "--validation"]) == 0
    assert "⟦b0<|im_end|>⟧" in capsys.readouterr().out
    assert preview([*files[:2], "--validation"]) == 2
    assert "there is no validation data" in capsys.readouterr().err


def test_a_preview_by_a_seed_is_the_same_each_time(files, capsys):
    shown = []
    for seed in (1, 1, 2):
        assert preview([*files, f"--seed={seed}"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != shown[2]


def test_a_preview_shows_what_training_refuses(files, tmp_path, capsys):
    write_jsonl(tmp_path / "rows.jsonl", [*chat_rows(1), {"messages": []}])
    assert preview(files) == 0
    assert "note: training refuses it: " in capsys.readouterr().out


def test_weights_of_datasets_count_in_an_epoch(tmp_path, tiny_model_folder, capsys):
    first, second = (
        write_jsonl(tmp_path / f"{name}.jsonl", [chat(f"{name}{n}", "a") for n in range(count)])
        for name, count in (("x", 10), ("y", 30))
    )
    sets = f"[{{data_path: '{first}', weight: 3}}, {{data_path: '{second}'}}]"
    (tmp_path / "sft.yaml").write_text(f"policy: {{model_name: '{tiny_model_folder}'}}\ndata: {{train: {sets}}}\n")
    doctor([f"--config={tmp_path}/sft.yaml", SMALL])
    lines = capsys.readouterr().out.splitlines()
    assert "training data: documents: 40" in lines
    assert "an epoch: documents: about 60" in lines


def test_what_the_trainer_notes_of_reading_is_told(files, tmp_path, capsys):
    row = {"instruction": "Add.", "input": "1 1", "output": "2"}
    write_jsonl(tmp_path / "rows.jsonl", [{**row, "input": f"{n} 1"} for n in range(20)])
    assert preview(files[:2]) == 0
    assert doctor([*files[:2], SMALL, "++data.add_eos=true"]) == 0
    told = capsys.readouterr().out
    assert told.count("rows of rows have an 'instruction', which is not trained on") == 2
    assert told.count("warning: rows of rows") == 2 and "note: rows of rows" not in told


def test_rows_that_were_set_aside_are_counted_by_themselves(tmp_path, tiny_model_folder, capsys):
    rows = chat_rows(40)
    data = write_jsonl(tmp_path / "rows.jsonl", rows + rows)
    doctor([str(data), f"--hf_model={tiny_model_folder}", "++data.split_validation_size=0.25", "--json"])
    told = json.loads(capsys.readouterr().out)
    (leak,) = [found["what"] for found in told["findings"] if "training rows too" in found["what"]]
    assert leak == f"{told['leakage']['rows']} of 20 validation rows are training rows too"
    (repeat,) = [found["what"] for found in told["findings"] if "repeat an earlier row" in found["what"]]
    repeated = told["train"]["repeats"]["rows"]
    assert repeat == f"{repeated} rows ({repeated / 60:.1%}) repeat an earlier row, case and blanks aside"
