import errno

import pytest
import torch

from skills_pipe.training.checkpoint.failures import disk_failures
from tests.training.tiny import tiny_tokenizer


def test_torch_save_on_a_full_disk_is_an_os_error():
    with pytest.raises(OSError) as caught, disk_failures(), open("/dev/full", "wb", buffering=0) as file:
        torch.save(torch.zeros(100_000), file)
    assert caught.value.errno == errno.ENOSPC


def test_torch_save_to_a_path_raises_no_os_error_by_itself():
    with pytest.raises(RuntimeError):
        torch.save(torch.zeros(100_000), "/dev/full")


def test_a_tokenizer_on_a_full_disk_is_an_os_error():
    with pytest.raises(OSError) as caught, disk_failures():
        tiny_tokenizer().backend_tokenizer.save("/dev/full")
    assert caught.value.errno == errno.ENOSPC


def test_a_bug_stays_what_it_is():
    with pytest.raises(KeyError), disk_failures():
        {}["x"]
