"""What TRL, torchtune and torchdata answered for the same inputs is what we answer."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from skills_pipe.training.data.batches import IGNORE, build_microbatch
from skills_pipe.training.data.build import DataSettings, build_dataset
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.pack import pack
from skills_pipe.training.data.sampler import BatchSampler
from skills_pipe.training.data.sources import DataSource
from skills_pipe.training.data.sources.alpaca import Alpaca
from skills_pipe.training.data.template import resolve_template
from tests.training.golden.peers.record import as_text
from tests.training.tiny import CHAT_TEMPLATE, tiny_tokenizer, write_jsonl

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "tests" / "training" / "golden" / "peers"
PEERS = ("trl", "torchtune", "torchdata")


@cache
def answers(peer):
    return json.loads((FOLDER / f"{peer}.json").read_text())


def dataset_of(documents):
    return SftDataset.from_examples(
        Example(input_ids=np.array(document["ids"], np.int32), loss_mask=np.array(document["mask"], np.uint8))
        for document in documents
    )


def labels_as_peers_write_them(microbatch):
    """Each label beside its own token; ours stand beside the token that they are predicted from."""
    return [IGNORE, *microbatch.labels[0, :-1].tolist()]


def chat_documents(path, rows, *, chat_template="default"):
    tokenizer = tiny_tokenizer()
    template = resolve_template(chat_template, tokenizer, None, "chat")
    return build_dataset([DataSource(path=write_jsonl(path, rows))], tokenizer, template, DataSettings(max_length=500))


def trained_ids(example):
    return [i if m else IGNORE for i, m in zip(example.input_ids.tolist(), example.loss_mask.tolist(), strict=True)]


# TRL


@pytest.mark.parametrize("case", answers("trl")["packing"], ids=lambda case: f"{len(case['lengths'])} documents")
def test_best_fit_needs_as_many_rows_as_trls(case):
    ours = pack(case["lengths"], case["capacity"], "best_fit_decreasing")
    for bins in (ours, case["bins"]):
        assert sorted(document for members in bins for document in members) == list(range(len(case["lengths"])))
    assert len(ours) == len(case["bins"])


def test_documents_in_their_order_would_need_more_rows_than_trls():
    case = answers("trl")["packing"][-1]
    assert len(pack(case["lengths"], case["capacity"], "concatenative")) > len(case["bins"])


def test_documents_side_by_side_are_trls_row():
    case = answers("trl")["collated"]
    row = build_microbatch(dataset_of(case["documents"]), range(len(case["documents"])))
    assert row.input_ids[0].tolist() == case["ids"]
    assert row.position_ids[0].tolist() == case["positions"]
    assert row.cu_seqlens.tolist() == case["cu_seqlens"]
    assert row.max_seqlen == case["longest"]
    assert labels_as_peers_write_them(row) == case["labels"]
    assert row.labels[0].tolist() != case["labels"]  # the control: labels beside their own token are others


def test_conversations_have_trls_tokens_and_labels(tmp_path):
    cases = answers("trl")["chats"]
    ours = chat_documents(tmp_path / "rows.jsonl", [{"messages": case["messages"]} for case in cases])
    assert [ours[at].input_ids.tolist() for at in range(len(ours))] == [case["ids"] for case in cases]
    assert [trained_ids(ours[at]) for at in range(len(ours))] == [case["labels"] for case in cases]


def test_a_template_that_trains_a_newline_more_would_have_other_labels(tmp_path):
    cases = answers("trl")["chats"]
    marked, plain = "'<|im_end|>' }}{% endgeneration %}{{ '\n' }}", "'<|im_end|>' }}{{ '\n' }}{% endgeneration %}"
    assert marked in CHAT_TEMPLATE
    rows = [{"messages": case["messages"]} for case in cases]
    ours = chat_documents(tmp_path / "rows.jsonl", rows, chat_template=CHAT_TEMPLATE.replace(marked, plain))
    assert [ours[at].input_ids.tolist() for at in range(len(ours))] == [case["ids"] for case in cases]
    assert all(trained_ids(ours[at]) != case["labels"] for at, case in enumerate(cases))


# torchtune


@pytest.mark.parametrize("case", answers("torchtune")["alpaca"], ids=lambda case: case["row"]["instruction"])
def test_alpacas_prompt_is_torchtunes_text_and_is_not_trained(case, tmp_path):
    question, answer = case["messages"]
    (ours,) = Alpaca().rows(case["row"], "here")
    assert [(m["role"], m["content"]) for m in ours.messages] == [(m["role"], m["text"]) for m in case["messages"]]
    assert (question["masked"], answer["masked"]) == (True, False)
    source = DataSource(path=write_jsonl(tmp_path / "rows.jsonl", [case["row"]]), format=Alpaca())
    tokenizer = tiny_tokenizer()
    made = build_dataset(
        [source], tokenizer, resolve_template(None, tokenizer, None, "pair"), DataSettings(max_length=500)
    )[0]
    parts = [tokenizer.decode(made.input_ids[made.loss_mask == trained]) for trained in (0, 1)]
    assert parts == ["<bos>" + question["text"], answer["text"] + "<|im_end|>"]


def test_labels_of_documents_are_those_that_torchtune_pads():
    case = answers("torchtune")["padded"]
    dataset = dataset_of(case["documents"])
    for at, (ids, labels) in enumerate(zip(case["ids"], case["labels"], strict=True)):
        row = build_microbatch(dataset, [at])
        padding = len(ids) - row.tokens
        assert row.input_ids[0].tolist() + [0] * padding == ids
        assert labels_as_peers_write_them(row) + [IGNORE] * padding == labels


@pytest.mark.parametrize("case", answers("torchtune")["packed"], ids=["first", "second", "third"])
def test_packing_in_order_makes_torchtunes_rows(case):
    dataset = dataset_of(case["documents"])
    bins = pack(dataset.lengths.tolist(), case["capacity"], "concatenative")
    rows = [build_microbatch(dataset, members) for members in bins]
    assert [row.input_ids[0].tolist() for row in rows] == [row["ids"] for row in case["rows"]]
    assert [row.position_ids[0].tolist() for row in rows] == [row["positions"] for row in case["rows"]]
    assert [labels_as_peers_write_them(row) for row in rows] == [row["labels"] for row in case["rows"]]
    other = pack(dataset.lengths.tolist(), case["capacity"], "first_fit_decreasing")
    assert sorted(map(sorted, other)) != sorted(map(sorted, bins))  # the control: the order makes the rows


# torchdata


@pytest.mark.parametrize("case", answers("torchdata")["resumed"], ids=["one process", "two workers"])
def test_batches_after_any_stop_are_those_of_a_restored_loader(case):
    total = case["epochs"] * (case["count"] // case["size"])

    def batches(start, seed=case["seed"]):
        sampler = BatchSampler(case["count"], case["size"], seed=seed)
        return [sampler.batch(step).tolist() for step in range(start, total)]

    assert batches(0) == case["whole"]
    assert [stop["after"] for stop in case["stops"]] == list(range(total + 1))
    for stop in case["stops"]:
        assert batches(stop["after"]) == stop["then"]
    assert batches(1, seed=case["seed"] + 1) != case["stops"][1]["then"]  # the control: another order is seen


# The peers themselves


def python_of_peers():
    path = Path(os.environ.get("PEERS_PYTHON") or ROOT / ".venv-peers" / "bin" / "python")
    if not path.exists():
        pytest.skip(f"there is no {path} with TRL, torchtune and torchdata: run `make test-peers`, or set PEERS_PYTHON")
    return path


@pytest.mark.peers
@pytest.mark.parametrize("peer", PEERS)
def test_the_peers_still_answer_as_recorded(peer):
    argv = [python_of_peers(), "-W", "ignore", "-m", "tests.training.golden.peers.record", peer]
    said = subprocess.run(argv, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    live = json.loads(said.stdout)
    assert live.pop("versions").keys() == answers(peer)["versions"].keys()
    assert live == {name: value for name, value in answers(peer).items() if name != "versions"}


@pytest.mark.parametrize("peer", PEERS)
def test_the_files_are_as_they_are_written_with_versions(peer):
    assert (FOLDER / f"{peer}.json").read_text() == as_text(answers(peer)) + "\n"
    assert peer in answers(peer)["versions"]
