"""Datasets of a hub: real requests to a hub on this machine, and what is left of them without a connection."""

import io
import json
import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.data.hub import Hub

READ = """
import json, sys
from skills_pipe.errors import UserError
from skills_pipe.training.data.records.locate import Place
from skills_pipe.training.data.records.opening import open_records
try:
    files = Place(**json.loads(sys.argv[1])).files()
except UserError as error:
    print(json.dumps(str(error)))
else:
    print(json.dumps([value["i"] for file in files for _, value in open_records(file).read()]))
"""
CARD = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: small/*.jsonl
- config_name: large
  default: true
  data_files:
  - split: train
    path: ["large/train-*", "more.jsonl"]
  - split: checked
    path: large/checked.jsonl
---
# A dataset
"""


def lines(*numbers):
    return "".join(json.dumps({"i": number}) + "\n" for number in numbers).encode()


def parquet(*numbers):
    sink = io.BytesIO()
    pq.write_table(pa.table({"i": list(numbers)}), sink)
    return sink.getvalue()


REPOSITORIES = {
    "org/plain": {
        "main": {"train.jsonl": lines(1, 2), "test.jsonl": lines(3), ".gitattributes": b""},
        "old": {"train.jsonl": lines(0)},
    },
    "org/shards": {"main": {f"data/train-0000{n}-of-00003.parquet": parquet(n) for n in range(3)}},
    "org/carded": {
        "main": {
            "README.md": CARD,
            "small/a.jsonl": lines(1),
            "large/train-b.jsonl": lines(3),
            "large/train-a.jsonl": lines(2),
            "large/checked.jsonl": lines(4),
            "more.jsonl": lines(5),
        }
    },
    "org/script": {
        "main": {"script.py": b"raise SystemExit"},
        "refs/convert/parquet": {"default/train/0000.parquet": parquet(7), "default/test/0000.parquet": parquet(8)},
    },
    "org/gated": {"main": {"train.jsonl": lines(1)}},
}


@pytest.fixture(scope="module")
def hub():
    with Hub(REPOSITORIES, gated=("org/gated",)).serving() as hub:
        yield hub


@pytest.fixture
def find(hub, tmp_path):
    def find(path, *, url=None, offline=False, **place):
        environment = {
            "HF_ENDPOINT": url or hub.url,
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1" if offline else "0",
        }
        arguments = [sys.executable, "-c", READ, json.dumps({"path": path, **place})]
        done = subprocess.run(
            arguments, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return find


def test_a_split_of_a_dataset_is_downloaded(find, hub):
    hub.asked.clear()
    assert find("org/plain") == [1, 2]
    assert not any("test.jsonl" in request for request in hub.asked), "only what is asked for"
    assert find("org/plain", split="test") == [3]
    assert find("org/plain", revision="old") == [0]


def test_shards_come_in_order(find):
    assert find("org/shards") == [0, 1, 2]


def test_a_card_says_which_files_are_meant(find):
    assert find("org/carded") == [2, 3, 5]
    assert find("org/carded", subset="small") == [1]
    assert find("org/carded", split="checked") == [4]
    assert "there is no subset 'smal' (org/carded): set subset to one of small, large" in find(
        "org/carded", subset="smal"
    )
    assert "there is no split 'validation' (org/carded): set the split to one of train, checked" in find(
        "org/carded", split="validation"
    )


def test_a_dataset_made_by_a_script_is_read_as_the_hub_has_converted_it(find):
    assert find("org/script") == [7]
    assert find("org/script", split="test") == [8]


def test_what_was_downloaded_serves_without_a_connection(find):
    assert find("org/shards") == [0, 1, 2]
    assert find("org/shards", offline=True) == [0, 1, 2]
    assert find("org/shards", url="http://127.0.0.1:9") == [0, 1, 2]
    assert "is not on this machine, and the hub cannot be reached" in find("org/plain", offline=True)
    assert "is not on this machine, and the hub cannot be reached" in find("org/plain", url="http://127.0.0.1:9")


def test_a_part_of_the_shards_is_not_the_split(find, tmp_path):
    assert find("org/shards") == [0, 1, 2]
    [shard] = tmp_path.rglob("snapshots/*/data/train-00001-*")
    shard.unlink()
    assert "of the 3 files data/train-... only some are on this machine" in find("org/shards", offline=True)
    assert find("org/shards") == [0, 1, 2], "with a connection it is downloaded again"


def test_what_the_hub_refuses(find):
    assert "no such dataset on the hub (org/absent)" in find("org/absent")
    assert "the dataset has no revision 'new' (org/plain)" in find("org/plain", revision="new")
    assert "the dataset is gated (org/gated): accept its terms on the hub, and set HF_TOKEN" in find("org/gated")


def test_downloads_can_go_elsewhere(find, tmp_path):
    assert find("org/plain", cache=str(tmp_path / "elsewhere")) == [1, 2]
    assert list((tmp_path / "elsewhere").rglob("train.jsonl"))
    assert not (tmp_path / "hub").exists()
