"""What will most likely spoil the model is printed, and left where the launcher looks."""

from __future__ import annotations

import pytest

from skills_pipe.artifacts.names import ENV_WARNINGS
from skills_pipe.artifacts.warnings import publish_warnings, read_warnings
from skills_pipe.training.sft import main
from tests.training.sft_arguments import arguments
from tests.training.tiny import chat_rows, write_jsonl

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

SHORT = ("sft.max_num_steps=1", "checkpointing.enabled=false")
LONG = {"messages": [{"role": "user", "content": "?" * 200}, {"role": "assistant", "content": "!"}]}
LIMIT = "longer than the limit of 160 tokens and left out: raise ++policy.max_total_sequence_length"


@pytest.fixture
def warned(tiny_model_folder, tmp_path, monkeypatch, capsys):
    """A training of one step on these rows: what it has warned of. It was started before, and warned of something."""
    monkeypatch.setenv(ENV_WARNINGS, str(tmp_path / "warnings.json"))

    def call(rows, *extra, validation=None):
        publish_warnings(["of an earlier start"])
        data = write_jsonl(tmp_path / "rows.jsonl", rows)
        held_out = None if validation is None else write_jsonl(tmp_path / "held-out.jsonl", validation)
        words = arguments(tiny_model_folder, data, tmp_path, *SHORT, *extra, validation=held_out)
        capsys.readouterr()
        assert main(words) == 0
        told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
        found = read_warnings(tmp_path / "warnings.json")
        assert [f"warning: {sentence}" for sentence in found] == told, "the launcher gets what is printed"
        return found

    return call


def test_negative_control_good_rows_warn_of_nothing(warned):
    assert warned(chat_rows(32), validation=chat_rows(8, seed=1)) == ()


def test_rows_that_are_read_wrongly_warn_of_each_mistake_once(warned):
    rows = [{"instruction": "Add.", "input": f"{n} 1", "output": "2"} for n in range(32)]
    stop, unused = warned(rows, "++policy.tokenizer.chat_template=null", "++data.add_eos=false")
    assert stop.startswith("no answer ends with a stop token, so the model will not learn to stop: add ++data.add_eos")
    assert unused.startswith("rows of rows have an 'instruction', which is not trained on: data.dataset_name=alpaca")


def test_documents_that_are_lost_to_the_limit_are_counted_of_training_and_of_validation(warned):
    train, held_out = warned([*chat_rows(30), LONG, LONG], validation=[*chat_rows(7, seed=1), LONG])
    assert train.startswith(f"2 of 32 documents (6.2%) are {LIMIT}")
    assert held_out.startswith(f"validation data held-out: 1 of 8 documents (12.5%) is {LIMIT}")


def test_negative_control_one_document_in_a_hundred_is_no_warning(warned):
    assert warned([*chat_rows(99), LONG]) == ()
    (one,) = warned([*chat_rows(98), LONG])
    assert one.startswith("1 of 99 documents (1.0%) is ")


def test_of_a_mixture_the_documents_are_counted_and_not_how_often_an_epoch_has_them(warned, tmp_path):
    others = write_jsonl(tmp_path / "others.jsonl", chat_rows(20, seed=2))
    sets = f"data.train=[{{data_path: '{tmp_path}/rows.jsonl', weight: 10}}, {{data_path: '{others}'}}]"
    (one,) = warned([*chat_rows(19), LONG], sets, "~data.train_data_path")
    assert one.startswith("1 of 40 documents (2.5%) is ")


def test_documents_that_are_shortened_are_not_lost(warned):
    question, _ = chat_rows(1)[0]["messages"]
    cut = {"messages": [question, {"role": "assistant", "content": "!" * 300}]}
    assert warned([*chat_rows(31), cut], "data.overlong=truncate") == ()
