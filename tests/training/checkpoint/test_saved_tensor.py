"""Where torch.save has put the bytes of a tensor."""

from __future__ import annotations

import io

import pytest
import torch

from skills_pipe.training.checkpoint.saved_tensor import first_byte

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool]


def saved(value) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return file


def values(file: io.BytesIO, tensor: torch.Tensor) -> torch.Tensor:
    start = first_byte(file, tuple(tensor.shape), tensor.dtype)
    assert start is not None
    held = bytearray(file.getvalue()[start : start + tensor.nbytes])
    return torch.frombuffer(held, dtype=tensor.dtype).view(tensor.shape)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7,), (3, 5), (1, 4, 2), (1,)])
def test_the_bytes_lie_where_it_says(dtype, shape):
    tensor = torch.randint(0, 2, shape).to(dtype)
    assert torch.equal(values(saved(tensor), tensor), tensor)


def test_a_part_of_a_storage_begins_within_it():
    whole = torch.arange(20.0).view(5, 4)
    part = whole[2:]
    file = saved(part)
    assert torch.equal(values(file, part), part)
    # The control: the storage begins two rows before it.
    start = first_byte(file, (3, 4), torch.float32) - 2 * 4 * 4
    assert file.getvalue()[start : start + whole.nbytes] == whole.numpy().tobytes()


def test_a_parameter_or_a_transposed_tensor_is_left_to_torch():
    matrix = torch.randn(3, 5)
    assert first_byte(saved(matrix.T), (5, 3), torch.float32) is None
    assert first_byte(saved(torch.nn.Parameter(matrix)), (3, 5), torch.float32) is None
    assert first_byte(saved({"a": matrix}), (3, 5), torch.float32) is None


def test_another_shape_or_type_than_expected_is_left_to_torch():
    assert first_byte(saved(torch.randn(3, 5)), (5, 3), torch.float32) is None
    assert first_byte(saved(torch.randn(3, 5)), (3, 5), torch.int32) is None
