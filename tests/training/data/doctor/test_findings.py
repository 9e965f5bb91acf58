"""What the doctor finds: each fault in data that has it, and nothing in data that has none."""

import pytest

from skills_pipe.training.config import load_config
from skills_pipe.training.data.doctor.diagnosis import diagnose
from skills_pipe.training.data.doctor.findings import Severity, findings
from tests.training.data.looking import chat, opened
from tests.training.tiny import chat_rows

GOOD = [chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(40)]
OTHERS = [chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(100, 110)]


@pytest.fixture
def found_in(tmp_path):
    """The findings in rows, as (severity, what, where)."""

    def find(train, validation=OTHERS, *, overrides=(), positions=None, fixes=False, **of_recipe):
        config = load_config(
            None,
            [
                *("++policy.model_name=m", "++data.train_data_path=a.jsonl", "++policy.train_global_batch_size=8"),
                *(f"++data.{key}={of_recipe[key]}" for key in ("on_bad_row", "overlong") if key in of_recipe),
                *overrides,
            ],
        )
        data = opened(tmp_path, train, validation, **{"add_bos": True, **of_recipe})
        found = findings(diagnose(data, config, positions=positions))
        return [(f.what, f.fix) if fixes else (f.severity, f.what, f.where or "") for f in found]

    return find


def test_good_data_has_no_findings(found_in):
    assert found_in(GOOD) == []


def test_rows_that_cannot_be_used_are_errors_unless_they_are_skipped(found_in, tmp_path):
    rows = [*GOOD, {"messages": []}]
    for policy, severity in (("error", Severity.ERROR), ("skip", Severity.WARNING)):
        ((found, what, where),) = found_in(rows, on_bad_row=policy)
        assert (found, where) == (severity, f"{tmp_path}/train.jsonl:41")
        assert "messages" in what


def test_more_bad_rows_than_are_named_are_counted(found_in):
    found = found_in([*GOOD, *[{"messages": []}] * 15])
    assert len(found) == 11
    assert found[-1][1] == "5 more rows cannot be used"


def test_data_that_does_not_fill_a_batch(found_in):
    ((severity, what, _),) = found_in(GOOD[:7])
    assert (severity, what) == (Severity.ERROR, "7 documents do not fill one global batch of 8")


def test_packed_rows_that_do_not_fill_a_batch(found_in):
    whole = ("++policy.sequence_packing.scope=dataset", "++policy.max_total_sequence_length=1000")
    assert (Severity.ERROR, "2 packed rows do not fill one global batch of 8", "policy.train_global_batch_size") in [
        *found_in(GOOD, overrides=whole)
    ]


def test_a_file_without_rows(found_in):
    assert (Severity.ERROR, "the training data has no rows", "") in found_in([])


def test_no_data_at_all(found_in):
    found = found_in([chat("q", "a" * 300)] * 9, overlong="drop")
    assert (Severity.ERROR, "no document is left to train on") in [(severity, what) for severity, what, _ in found]


def test_answers_that_never_stop(found_in):
    rows = [{"input": f"q{n}", "output": "a"} for n in range(40)]
    found = found_in(rows, [], template=None, add_eos=False)
    assert found[0][:2] == (
        Severity.ERROR,
        "no answer ends with a stop token, so the model will not learn to stop",
    )


def test_some_answers_that_do_not_stop(found_in):
    rows = [{"input": f"q{n}", "output": "a" + ("" if n == 3 else "<|im_end|>")} for n in range(40)]
    found = found_in(rows, [], template=None, add_eos=False)
    assert (Severity.WARNING, "1 of 40 answers end without a stop token", "") in found


def test_text_that_holds_a_beginning_already(found_in):
    rows = [{"input": f"<bos><bos>q{n}", "output": "a"} for n in range(40)]
    assert (Severity.WARNING, "40 documents began with <bos> twice; one was taken out", "") in found_in(
        rows, [], template=None
    )


def test_a_beginning_in_the_middle(found_in):
    rows = [*GOOD, chat("<bos>What is it?", "It.")]
    assert found_in(rows) == [(Severity.WARNING, "1 documents have <bos> behind their start", "")]


def test_beginnings_of_some_documents_only(found_in):
    rows = [{"input": ("<bos>" if n % 2 else "") + f"q{n}", "output": "a"} for n in range(40)]
    found = found_in(rows, [], template=None, add_bos=False)
    assert (
        Severity.WARNING,
        "20 of 40 documents begin with <bos>, the others do not",
        "data.add_bos",
    ) in found


@pytest.mark.parametrize(
    ("overlong", "severity", "words"),
    [
        ("drop", Severity.WARNING, "left out"),
        ("truncate", Severity.WARNING, "shortened"),
        ("error", Severity.ERROR, "refused"),
    ],
)
def test_documents_above_the_limit(found_in, tmp_path, overlong, severity, words):
    rows = [*GOOD, *(chat(f"{n}" * 300, "a") for n in range(10))]
    ((found, what, where),) = found_in(rows, overlong=overlong)
    assert (found, what) == (severity, f"10 documents (20.0%) are longer than 200 tokens and are {words}")
    assert where.startswith(f"{tmp_path}/train.jsonl:41, ")
    assert where.endswith(" and 7 more")


@pytest.mark.parametrize(
    ("positions", "fix"),
    [
        (None, "set ++policy.max_total_sequence_length=640 to keep all 50, or shorten them"),
        (639, "set ++policy.max_total_sequence_length=639 to keep all 50, or shorten them"),
        (
            250,
            "set ++policy.max_total_sequence_length=250 to keep 40 of 50, or shorten them: the model was made for no "
            "more positions",
        ),
        (200, "shorten them: the model was made for 200 positions"),
    ],
)
def test_no_limit_beyond_the_positions_of_the_model_is_advised(found_in, positions, fix):
    rows = [*GOOD, *(chat(f"{n}" * 600, "a") for n in range(10))]
    ((_, advised),) = found_in(rows, overlong="drop", positions=positions, fixes=True)
    assert advised == fix


def test_documents_that_are_kept_and_beyond_the_positions_of_the_model(found_in):
    kept = [*GOOD, chat("a" * 120, "a")]
    ((severity, what, where),) = found_in(kept, positions=100)
    assert (severity, where) == (Severity.WARNING, "policy.max_total_sequence_length")
    assert what.startswith("1 document is longer than the 100 positions that the model was made for, up to 1")
    assert found_in(kept, positions=190) == []


@pytest.mark.parametrize(("shuffle", "others"), [(True, "others in each"), (False, "the same in each")])
def test_documents_that_fill_no_batch_of_an_epoch(found_in, shuffle, others):
    rows = [chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(56)]
    keys = ["++policy.train_global_batch_size=32", f"++data.shuffle={shuffle}"]
    ((severity, what, where),) = found_in(rows, overrides=keys)
    assert (severity, where) == (Severity.WARNING, "policy.train_global_batch_size")
    assert what == f"24 of 56 documents fill no global batch of 32 and are not trained on in an epoch, {others}"
    ((_, fix),) = found_in(rows, overrides=keys, fixes=True)
    assert fix == "set ++policy.train_global_batch_size=28, which leaves 0, or add data"
    assert found_in(rows, overrides=["++policy.train_global_batch_size=28"]) == []


def test_a_few_documents_above_the_limit_are_worth_a_note(found_in):
    few = [*(chat(f"What is {n} + {n}?", f"It is {2 * n}.") for n in range(99)), chat("x" * 300, "a")]
    assert [severity for severity, _, _ in found_in(few, [])] == [Severity.NOTE]
    assert [severity for severity, _, _ in found_in(few[1:], [])] == [Severity.WARNING], "of 99 it is more than 1 %"


def test_prompts_that_are_trained(found_in):
    rows = [{"input": "", "output": f"q{n} a"} for n in range(40)]
    found = found_in(rows, [], template=None)
    assert (Severity.WARNING, "all of 40 documents is trained, prompts included", "") in found


def test_empty_answers(found_in):
    rows = [*GOOD, {"input": "q", "output": ""}]
    found = found_in(rows, [], template=None, add_eos=False)
    assert [what for _, what, _ in found if "nothing to train" in what] == [
        "1 documents have nothing to train and are left out"
    ]


@pytest.mark.parametrize("answer", ["", " \n"])
def test_answers_that_say_nothing(found_in, tmp_path, answer):
    """Their stop token is trained, so nothing else would tell."""
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    asked = [{"role": "user", "content": "q"}, call, {"role": "tool", "content": "1"}]
    called = {"messages": [*asked, {"role": "assistant", "content": "It is 1."}]}
    row = {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}]}
    found = [finding for finding in found_in([*GOOD, called, row]) if "empty" in finding[1]]
    assert found == [(Severity.WARNING, "rows with an empty answer: 1", f"{tmp_path}/train.jsonl:42")]


def test_rows_that_repeat_themselves(found_in, tmp_path):
    ((severity, what, where),) = found_in([*GOOD, GOOD[0], GOOD[1]])
    assert (severity, what) == (Severity.WARNING, "2 rows (4.8%) repeat an earlier row, case and blanks aside")
    assert where.startswith(f"{tmp_path}/train.jsonl:41 as {tmp_path}/train.jsonl:1, ")


def test_prompts_that_repeat_themselves(found_in):
    found = found_in([*GOOD, chat("What is 1 + 1?", "Two.")])
    assert [(severity, what) for severity, what, _ in found] == [
        (Severity.NOTE, "1 rows repeat an earlier prompt with another answer")
    ]


def test_validation_rows_that_are_trained_on(found_in, tmp_path):
    ((severity, what, where),) = found_in(GOOD, [*OTHERS, GOOD[3]])
    assert (severity, what) == (Severity.ERROR, "1 of 11 validation rows are training rows too")
    assert where == f"{tmp_path}/val.jsonl:11 as {tmp_path}/train.jsonl:4"


def test_validation_prompts_that_are_trained_on(found_in):
    ((severity, what, _),) = found_in(GOOD, [*OTHERS, chat("what is 3 + 3?", "Six.")])
    assert (severity, what) == (
        Severity.WARNING,
        "1 of 11 validation rows have a prompt of the training rows",
    )


def test_bad_validation_rows_are_found_too(found_in, tmp_path):
    assert [where for _, _, where in found_in(GOOD, [{"messages": []}])] == [f"{tmp_path}/val.jsonl:1"]


def test_no_validation_data_is_worth_a_note(found_in):
    assert [(severity, what) for severity, what, _ in found_in(GOOD, None)] == [
        (Severity.NOTE, "there is no validation data")
    ]


def test_a_limit_far_above_the_documents(found_in):
    generous = {"max_length": 4096, "overrides": ["++policy.sequence_packing.enabled=false"]}
    assert [what for _, what, _ in found_in(GOOD, **generous)] == [
        "the limit of 4,096 tokens is far above the documents"
    ]
    assert found_in(GOOD, max_length=4096) == []


def test_the_worst_comes_first(found_in):
    severities = [severity for severity, _, _ in found_in([*chat_rows(10), *chat_rows(10), {"messages": []}], None)]
    assert severities == sorted(severities, key=list(Severity).index)
    assert set(severities) == set(Severity)
