import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skills_pipe.training.data.cache.files import DocumentWriter, open_documents
from skills_pipe.training.data.chunk import EncodedChunk
from skills_pipe.training.data.dataset import Example, SftDataset
from skills_pipe.training.data.report import DataReport

document = st.lists(st.tuples(st.integers(0, 70_000), st.sampled_from([0, 1])), min_size=1, max_size=9)


def chunk_of(documents, kind=np.uint8):
    pairs = [pair for pairs in documents for pair in pairs]
    return EncodedChunk(
        token_ids=np.array([i for i, _ in pairs], np.int32),
        loss_mask=np.array([m for _, m in pairs], kind),
        lengths=np.array([len(pairs) for pairs in documents], np.int64),
    )


def write(folder, chunks, vocabulary=100_000):
    folder.mkdir(exist_ok=True)
    with DocumentWriter(folder, vocabulary) as writer:
        for chunk in chunks:
            writer.add(chunk)
        writer.seal(DataReport(rows_read=3, length_percentiles={50: 2}), {})
    return folder


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.bin"))


@given(chunks=st.lists(st.lists(document, max_size=4), min_size=1, max_size=4).filter(any))
def test_documents_come_back_as_they_were_with_the_fingerprint_of_those_in_memory(tmp_path_factory, chunks):
    folder = write(tmp_path_factory.mktemp("entry"), [chunk_of(documents) for documents in chunks])
    mapped = open_documents(folder)
    documents = [pairs for documents in chunks for pairs in documents]
    examples = [
        Example(
            input_ids=np.array([i for i, _ in pairs], np.int32), loss_mask=np.array([m for _, m in pairs], np.uint8)
        )
        for pairs in documents
    ]
    held = SftDataset.from_examples(examples)
    assert mapped.fingerprint == held.fingerprint
    assert mapped.lengths.tolist() == held.lengths.tolist()
    assert mapped.targets.tolist() == held.targets.tolist()
    for index, example in enumerate(examples):
        assert mapped[index].input_ids.tolist() == example.input_ids.tolist()
        assert mapped[index].loss_mask.tolist() == example.loss_mask.tolist()


def test_a_token_takes_three_bytes_where_ids_fit_into_two(tmp_path):
    many = [chunk_of([[(7, 1)] * 1000] * 10)]
    narrow, wide = write(tmp_path / "narrow", many, vocabulary=2**16), write(tmp_path / "wide", many)
    offsets_and_targets = 8 * 11 + 4 * 10
    assert size(narrow) == 3 * 10_000 + offsets_and_targets
    assert size(wide) == 5 * 10_000 + offsets_and_targets
    assert open_documents(narrow).fingerprint == open_documents(wide).fingerprint


def test_weights_widen_the_mask_of_all_documents(tmp_path):
    plain, weighted = chunk_of([[(1, 0), (2, 1)]]), chunk_of([[(3, 0), (4, 0.25), (5, 0)]], np.float32)
    mapped = open_documents(write(tmp_path / "entry", [plain, weighted, plain]))
    assert mapped.weighted
    assert [mapped[i].loss_mask.tolist() for i in range(3)] == [[0, 1], [0, 0.25, 0], [0, 1]]
    assert mapped.targets.tolist() == [1, 1, 1]
    assert not open_documents(write(tmp_path / "other", [plain])).weighted


def test_the_report_comes_back(tmp_path):
    folder = write(tmp_path / "entry", [chunk_of([[(1, 0)]])])
    assert open_documents(folder).report == DataReport(rows_read=3, length_percentiles={50: 2})


@pytest.mark.parametrize("damage", ["short", "missing", "manifest", "no manifest", "format"])
def test_what_is_not_whole_is_not_opened(tmp_path, damage):
    folder = write(tmp_path / "entry", [chunk_of([[(1, 0), (2, 1)]])])
    assert open_documents(folder) is not None
    manifest = folder / "manifest.json"
    if damage == "short":
        (folder / "token_ids.bin").write_bytes((folder / "token_ids.bin").read_bytes()[:-1])
    elif damage == "missing":
        (folder / "loss_mask.bin").unlink()
    elif damage == "manifest":
        manifest.write_text(manifest.read_text()[:-9])
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 0}))
    assert open_documents(folder) is None
