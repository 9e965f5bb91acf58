"""Rows in, data set out: what is kept, what is left out and counted, what is refused."""

import json

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from skills_pipe.errors import DataError
from skills_pipe.training.data.batches import IGNORE, build_microbatch
from skills_pipe.training.data.build import DataSettings, build_dataset
from skills_pipe.training.data.chunk import ChunkEncoder
from skills_pipe.training.data.preview import preview
from skills_pipe.training.data.report import DataReport
from skills_pipe.training.data.sources import DataSource, first_form
from skills_pipe.training.data.sources.aligner_prompt_response import AlignerPromptResponse
from skills_pipe.training.data.sources.texts import Texts
from skills_pipe.training.data.template import resolve_template
from tests.training.data import families, golden
from tests.training.tiny import chat_rows, tiny_tokenizer, write_jsonl

BAD = {"messages": [{"role": "user", "content": "q"}]}


def question(text, answer="a"):
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]}


def build(path, *, tokenizer=None, chat_template="default", max_length=200, **settings):
    tokenizer = tokenizer or tiny_tokenizer()
    sources = [DataSource(path=path)]
    template = resolve_template(chat_template, tokenizer, None, first_form(sources))
    return build_dataset(sources, tokenizer, template, DataSettings(max_length=max_length, **settings))


def texts(dataset, tokenizer=None):
    tokenizer = tokenizer or tiny_tokenizer()
    return [tokenizer.decode(dataset[index].input_ids) for index in range(len(dataset))]


def test_documents_keep_the_order_of_the_rows_over_chunks_and_files(tmp_path):
    rows = chat_rows(600)
    first, second = write_jsonl(tmp_path / "a.jsonl", rows[:300]), write_jsonl(tmp_path / "b.jsonl", rows[300:])
    tokenizer = tiny_tokenizer()
    template = resolve_template("default", tokenizer, None, "chat")
    sources = [DataSource(path=first), DataSource(path=second)]
    dataset = build_dataset(sources, tokenizer, template, DataSettings(max_length=200))
    expected = [tokenizer.apply_chat_template(row["messages"], tokenize=False) for row in rows]
    assert texts(dataset) == expected


def test_the_report_adds_up(tmp_path):
    dataset = build(write_jsonl(tmp_path / "rows.jsonl", chat_rows(20)))
    report = dataset.report
    assert (report.rows_read, report.documents, len(dataset)) == (20, 20, 20)
    assert (report.turns, report.turns_without_stop, report.split_documents) == (20, 0, 0)
    assert (report.compared, report.differing) == (20, 0)
    assert report.tokens == dataset.lengths.sum()
    assert report.targets == dataset.targets.sum() == sum(dataset[i].loss_mask.sum() for i in range(20))
    assert report.length_percentiles[100] == dataset.lengths.max()
    assert dict(report.describe())["trained tokens"].startswith(f"{report.targets:,} (")


def test_bad_rows_are_refused_all_at_once(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(question("q")) + "\n{\n" + json.dumps(BAD) + "\n")
    with pytest.raises(DataError) as caught:
        build(path)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 rows cannot be used"
    assert lines[1].strip().startswith(f"{path}:2: not JSON")
    assert lines[2].strip().startswith(f"{path}:3: the last message comes from 'user'")
    assert "data.on_bad_row=skip" in lines[3]


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ('{"input": "q", "output": "a \\ud83d b"}', "not Unicode (half a surrogate pair after"),
        ('{"input": "q", "output": "a", "n": ' + "1" * 5000 + "}", "a number of too many digits"),
        ('{"input": "q", "output": "a", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"input": "q", "output": null}', "'output' is null"),
    ],
)
def test_what_no_text_can_be_made_of_is_a_bad_row(tmp_path, row, what):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "q", "output": "\\ud83d\\ude00"}\n' + row + "\n")
    with pytest.raises(DataError) as caught:
        build(path, chat_template=None)
    assert str(caught.value).count("\n") == 0
    assert what in str(caught.value)
    assert f"({path}:2)" in str(caught.value)
    [good] = texts(build(path, chat_template=None, on_bad_row="skip"))
    assert good == "<bos>q😀<|im_end|>"


def test_half_a_character_in_what_is_not_text_does_no_harm(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "q", "output": "a", "source": "\\ud83d"}\n')
    assert texts(build(path, chat_template=None)) == ["<bos>qa<|im_end|>"]


def test_one_bad_row_is_one_line(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), BAD])
    with pytest.raises(DataError) as caught:
        build(path)
    assert str(caught.value) == (
        f"the last message comes from 'user', not from 'assistant' ({path}:2): "
        "mend the data, or set ++data.on_bad_row=skip to leave such rows out"
    )


def test_at_most_ten_bad_rows_are_named(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [BAD] * 300)
    with pytest.raises(DataError, match="10 or more rows cannot be used") as caught:
        build(path)
    assert str(caught.value).count(f"{path}:") == 10


def test_bad_rows_are_skipped_and_counted_on_demand(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), BAD, question("r")])
    dataset = build(path, on_bad_row="skip")
    assert len(dataset) == 2
    assert dataset.report.dropped == {"bad row": 1}
    assert dataset.report.rows_read == 3
    (told,) = [value for label, value in dataset.report.describe() if label == "left out"]
    assert told.startswith(f"{path}:2: the last message comes from 'user'")
    assert DataReport.from_json(json.loads(json.dumps(dataset.report.to_json()))) == dataset.report
    good = write_jsonl(tmp_path / "good.jsonl", [question("q")])
    assert "left out" not in dict(build(good, on_bad_row="skip").report.describe())


def test_of_many_bad_rows_the_first_are_named(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), *[BAD] * 30])
    report = build(path, on_bad_row="skip").report
    assert report.dropped == {"bad row": 30}
    assert [row.partition(": ")[0] for row in report.bad_rows] == [f"{path}:{line}" for line in range(2, 12)]


def test_rows_that_the_template_refuses_are_bad_rows(tmp_path):
    template = (
        "{% for m in messages %}{{ raise_exception('no cats') if 'cat' in m.content }}{{ m.content }}{% endfor %}"
    )
    path = write_jsonl(tmp_path / "rows.jsonl", [question("dog"), question("cat")])
    with pytest.raises(DataError, match="the chat template refuses the row: no cats"):
        build(path, chat_template=template)
    assert len(build(path, chat_template=template, on_bad_row="skip")) == 1


def test_rows_of_two_forms_are_bad_where_the_template_is_inferred(tmp_path):
    rows = [{"input": "q", "output": "a"}, question("q")]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="a row of messages among rows of input and output"):
        build(path, chat_template="infer_from_data")
    assert len(build(path, chat_template=None)) == 2


def test_an_exact_fit_is_kept_and_one_token_more_is_dropped(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), question("qq")])
    shorter = build(path).lengths[0]
    dataset = build(path, max_length=shorter)
    assert dataset.lengths.tolist() == [shorter]
    assert dataset.report.dropped == {"longer than the limit": 1}
    assert dataset.report.overlong == 1


def test_an_overlong_document_is_an_error_on_demand(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), question("q" * 100)])
    with pytest.raises(DataError, match=rf"a document has \d+ tokens, 60 are allowed \({path}:2\)"):
        build(path, max_length=60, overlong="error")


def test_an_overlong_document_is_truncated_on_demand(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q" * 100, "the answer")])
    dataset = build(path, max_length=60, overlong="truncate")
    assert dataset.lengths.tolist() == [60]
    assert preview(dataset[0], tiny_tokenizer()).endswith("⟦the answer<|im_end|>⟧\n")
    assert (dataset.report.overlong, dataset.report.truncated) == (1, 1)


def test_an_answer_that_lost_its_end_has_no_stop_token_and_turns_that_are_gone_are_not_counted(tmp_path):
    turns = [
        {"role": role, "content": text} for _ in range(3) for role, text in (("user", "q"), ("assistant", "abcdef"))
    ]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}])
    whole = build(path).report
    assert (whole.turns, whole.turns_without_stop) == (3, 0)
    # Of the first prompt nothing can be spared but some; then answers go from the end.
    counts = []
    for limit in range(int(whole.tokens), 30, -1):
        report = build(path, max_length=limit, overlong="truncate").report
        counts.append((report.turns, report.turns_without_stop))
    assert list(dict.fromkeys(counts)) == [(3, 0), (3, 1), (2, 0), (2, 1)]


def test_documents_that_need_no_care_are_the_same_one_by_one(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "rows.jsonl", chat_rows(40))
    together = build(path)
    monkeypatch.setattr(ChunkEncoder, "_is_good", lambda self, together: False)
    apart = build(path)
    assert apart.fingerprint == together.fingerprint
    assert apart.report == together.report


def test_a_document_with_nothing_to_train_is_dropped(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": ""}, {"input": "q", "output": "a"}])
    dataset = build(path, chat_template=None, add_eos=False)
    assert len(dataset) == 1
    assert dataset.report.dropped == {"nothing to train": 1}
    assert dataset.report.turns_without_stop == 1


def test_answers_that_never_stop_are_warned_of(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "q", "output": "a"}])
    (warning,) = build(path, chat_template=None, add_eos=False).report.warnings()
    assert "will not learn to stop" in warning
    assert build(path, chat_template=None, add_eos=True).report.warnings() == []


def test_only_documents_that_are_kept_count_as_truncated(tmp_path):
    path = write_jsonl(
        tmp_path / "rows.jsonl", [{"input": "q" * 300, "output": ""}, {"input": "q" * 300, "output": "a"}]
    )
    report = build(path, chat_template=None, add_eos=False, max_length=50, overlong="truncate").report
    assert (report.overlong, report.truncated, report.documents, report.dropped) == (2, 1, 1, {"nothing to train": 1})


def test_a_second_beginning_token_is_taken_out(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "<bos><bos><bos>q", "output": "a"}])
    dataset = build(path, chat_template=None)
    assert texts(dataset) == ["<bos>qa<|im_end|>"]
    assert dataset.report.doubled_bos == 1


def test_where_it_was_trained_the_token_that_is_then_first_is_not_counted(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"text": "<bos><bos>q"}, {"text": "<bos>q"}])
    tokenizer = tiny_tokenizer()
    sources = [DataSource(path=path, format=Texts())]
    template = resolve_template(None, tokenizer, None, None)
    dataset = build_dataset(sources, tokenizer, template, DataSettings(max_length=9))
    assert [dataset[index].loss_mask.tolist() for index in (0, 1)] == [[0, 1, 1]] * 2
    labels = build_microbatch(dataset, [0, 1]).labels
    assert int(dataset.targets.sum()) == dataset.report.targets == int((labels != IGNORE).sum()) == 4


def test_ids_above_the_number_of_tokens_stay_as_they_are(tmp_path):
    """Vocabularies may have gaps; two bytes would make 4,464 of 70,000."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "</s>": 2, "b": 70_000}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>")
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "a", "output": " b"}])
    dataset = build(path, tokenizer=tokenizer, chat_template=None)
    assert dataset[0].input_ids.tolist() == [1, 70_000, 2]


def test_turns_that_the_template_changes_later_make_documents_of_their_own(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": golden.conversation("think").messages}])
    dataset = build(path, tokenizer=golden.tokenizer("qwen3"))
    assert len(dataset) == 2
    assert (dataset.report.rows_read, dataset.report.split_documents) == (1, 1)


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [BAD, question("q" * 300)])
    with pytest.raises(DataError, match=r"no document is left of 2 rows \(longer than the limit: 1; bad row: 1\)"):
        build(path, on_bad_row="skip")


def test_where_nothing_is_left_the_reason_of_most_rows_has_the_advice(tmp_path):
    def advice(*rows, **settings):
        with pytest.raises(DataError, match="no document is left") as caught:
            build(write_jsonl(tmp_path / "rows.jsonl", rows), on_bad_row="skip", **settings)
        return caught.value.fix

    long, silent = question("q" * 300), question("q")
    silent["messages"][1]["train"] = False
    found = advice(long, long, BAD, max_length=99)
    assert "raise policy.max_total_sequence_length" in found and "the limit is 99 tokens" in found
    assert "data.overlong=truncate" in found
    assert len(build(write_jsonl(tmp_path / "rows.jsonl", [long]), max_length=99, overlong="truncate")) == 1
    assert len(build(write_jsonl(tmp_path / "rows.jsonl", [long]), max_length=999)) == 1, "what is told works"
    # The controls: other reasons have other advice.
    assert advice(BAD, BAD, long).startswith("mend the data")
    assert advice(silent).startswith("give the rows answers")


def test_the_fingerprint_follows_content_and_not_place(tmp_path):
    rows = chat_rows(10)
    same = build(write_jsonl(tmp_path / "a.jsonl", rows)).fingerprint
    assert build(write_jsonl(tmp_path / "b.jsonl", rows)).fingerprint == same
    others = [
        build(write_jsonl(tmp_path / "c.jsonl", rows[::-1])).fingerprint,
        build(
            tmp_path / "a.jsonl", add_bos=False, chat_template="{% for m in messages %}{{ m.content }}{% endfor %}"
        ).fingerprint,
        build(tmp_path / "a.jsonl", train_on_header=True).fingerprint,
        build(tmp_path / "a.jsonl", max_length=70).fingerprint,
    ]
    assert same not in others


def test_a_document_with_nothing_to_train_is_an_error_on_demand(tmp_path):
    silent = question("q")
    silent["messages"][1]["train"] = False
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q"), silent])
    with pytest.raises(DataError, match=r"none of the tokens .* is trained .*rows.jsonl:2.*on_untrained=skip"):
        build(path, on_untrained="error")
    # The control: counted and left out otherwise.
    assert build(path).report.dropped == {"nothing to train": 1}


def test_all_of_the_text_is_trained_on_demand(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", chat_rows(5))
    everything = build(path, answers_only=False)
    assert everything.targets.tolist() == (everything.lengths - 1).tolist()
    assert everything.lengths.tolist() == build(path).lengths.tolist()
    assert (build(path).targets < everything.targets).all()


def test_tokens_over_a_border_are_counted(tmp_path):
    tokenizer = families.tokenizer()
    path = write_jsonl(tmp_path / "rows.jsonl", [question("q", "\n\nIt is 4."), question("q", "It is 4.")])
    marked = families.TEMPLATES["chatml"]
    settings = {"tokenizer": tokenizer, "chat_template": marked, "add_bos": False, "add_eos": False}
    whole = build(path, **settings)
    apart = build(path, **settings, tokenize="segments")
    assert (whole.report.straddling, whole.report.differing) == (1, 0)
    assert dict(whole.report.describe())["trained tokens that begin or end in other text"] == "1"
    assert (apart.report.straddling, apart.report.differing) == (0, 1)


def test_fields_that_a_format_allows_to_cut_are_cut_before_the_policy_for_long_documents(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"input": "x" * 50, "output": "the answer"}])
    source = DataSource(path=path, format=AlignerPromptResponse(truncation_method="left"))
    template = resolve_template(None, tiny_tokenizer(), None, None)

    def built(limit):
        settings = DataSettings(max_length=limit, overlong="drop", add_bos=False)
        return build_dataset([source], tiny_tokenizer(), template, settings)

    short = built(20)
    assert texts(short) == ["x" * 8 + " the answer<|im_end|>"]
    assert (short.report.truncated, short.report.overlong, short.report.documents) == (1, 1, 1)
    # The control: what all the fields are not enough for is left to the policy.
    with pytest.raises(DataError, match=r"no document is left of 1 rows \(longer than the limit: 1\)"):
        built(9)
