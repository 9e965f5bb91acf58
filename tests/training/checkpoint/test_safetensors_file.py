import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from skills_pipe.artifacts.manifest import FileRecord
from skills_pipe.errors import CheckpointError
from skills_pipe.training.checkpoint.safetensors_file import Tensor, read_pieces, read_tensors, write_model

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8, torch.bool]
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)


def random_tensors(drawn):
    generator = torch.Generator().manual_seed(0)
    return {
        f"layer.{index}.weight": torch.randint(0, 2, shape, generator=generator).to(dtype)
        for index, (dtype, shape) in enumerate(drawn)
    }


def write(folder, values, **options):
    folder.mkdir()
    tensors = [Tensor(name=name, dtype=value.dtype, shape=tuple(value.shape)) for name, value in values.items()]

    def produce(tensor):
        flat = values[tensor.name].flatten()
        return flat.split(3) if len(flat) else ()

    return write_model(folder, tensors, produce, **({"max_shard_size": 100} | options))


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=8))
def test_the_library_reads_what_we_write(tmp_path_factory, drawn):
    values = random_tensors(drawn)
    folder = tmp_path_factory.mktemp("model") / "x"
    records = write(folder, values)
    read = {}
    for name, record in records.items():
        read |= load_file(folder / name)
        assert record.size == (folder / name).stat().st_size
        assert record == FileRecord.of(folder / name)
    assert read.keys() == values.keys()
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in values.items())


@settings(max_examples=60, deadline=None)
@given(drawn=st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=8))
def test_we_read_what_the_library_writes(tmp_path_factory, drawn):
    values = random_tensors(drawn)
    folder = tmp_path_factory.mktemp("model")
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    found = read_tensors(folder)
    assert found.keys() == values.keys()
    for name, tensor in found.items():
        pieces = [piece.clone() for piece in read_pieces(tensor)]
        read = torch.cat(pieces) if pieces else torch.empty(0, dtype=tensor.dtype)
        assert (tensor.dtype, tensor.shape) == (values[name].dtype, tuple(values[name].shape))
        assert torch.equal(read, values[name].flatten())


def test_every_tensor_starts_at_a_multiple_of_its_element_size(tmp_path):
    values = {"a": torch.zeros(3, dtype=torch.uint8), "b": torch.zeros(3, dtype=torch.float32), "c": torch.zeros(1)}
    write(tmp_path / "x", values)
    for tensor in read_tensors(tmp_path / "x").values():
        assert tensor.offset % tensor.dtype.itemsize == 0


def test_several_files_come_with_an_index_and_the_metadata(tmp_path):
    values = {name: torch.full((20,), float(index)) for index, name in enumerate("abc")}
    write(tmp_path / "x", values, metadata={"averaged_from": "1,2"})
    index = json.loads((tmp_path / "x" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": 240, "averaged_from": "1,2"}
    assert index["weight_map"] == {
        "a": "model-00001-of-00003.safetensors",
        "b": "model-00002-of-00003.safetensors",
        "c": "model-00003-of-00003.safetensors",
    }
    with safe_open(tmp_path / "x" / "model-00001-of-00003.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "averaged_from": "1,2"}


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x08" + b"\0" * 7 + b"no json!", b"\x02" + b"\0" * 7 + b"[]"])
def test_a_file_that_is_no_safetensors_file_is_an_error(tmp_path, content):
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file that can be read"):
        read_tensors(tmp_path)


def test_a_file_cut_short_is_an_error(tmp_path):
    write(tmp_path / "x", {"a": torch.zeros(20)})
    path = tmp_path / "x" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="ends at byte"):
        list(read_pieces(read_tensors(tmp_path / "x")["a"]))


def test_a_missing_file_of_the_index_is_an_error(tmp_path):
    write(tmp_path / "x", {name: torch.zeros(20) for name in "ab"})
    (tmp_path / "x" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors missing"):
        read_tensors(tmp_path / "x")
