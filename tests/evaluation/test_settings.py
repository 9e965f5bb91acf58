"""The command line of the evaluation: defaults, the benchmark's own, what the user sets, and what cannot be."""

from dataclasses import replace

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.evaluation.settings import Inference, parse_arguments

BASE = {
    "--benchmark": "arithmetic",
    "--data_dir": "data",
    "--model": "m",
    "--output_dir": "out",
    "--server_type": "hf",
}


def parse(*extra, **changes):
    options = BASE | {f"--{name}": value for name, value in changes.items()}
    return parse_arguments([*(f"{k}={v}" for k, v in options.items() if v is not None), *extra])


def test_defaults_are_the_benchmarks_then_the_users():
    assert parse().keys.inference == replace(Inference(), tokens_to_generate=128)
    assert parse("++inference.tokens_to_generate=7").keys.inference.tokens_to_generate == 7
    assert parse(benchmark="gsm8k").keys.inference.tokens_to_generate == 2048
    assert parse().split == "test"
    assert parse(split="train").data_path.as_posix() == "data/arithmetic/train.jsonl"
    assert parse().prompt_config == "generic/math"


def test_seeds_sample_unless_told_otherwise():
    assert parse().seeds is None
    sampled = parse("--num_random_seeds=3", "--starting_seed=5")
    assert sampled.seeds == (5, 6, 7)
    assert sampled.keys.inference.temperature == 0.7
    assert parse("--num_random_seeds=3", "++inference.temperature=0.3").keys.inference.temperature == 0.3


def test_the_server_of_the_same_job_is_found_by_itself(monkeypatch):
    monkeypatch.setenv("SKILLS_PIPE_SERVER_ADDRESS", "http://127.0.0.1:12345")
    assert parse(server_type="generic").server_address == "http://127.0.0.1:12345"
    assert parse(server_type="vllm", server_address="http://x").server_address == "http://x", "what is said wins"
    assert parse(server_type="hf").server_address is None
    with pytest.raises(OptionError, match="needs the address"):
        parse(server_type="openai")


@pytest.mark.parametrize(
    ("extra", "changes", "message"),
    [
        ([], {"benchmark": "gsm8"}, "did you mean 'gsm8k'"),
        ([], {"model": None}, "--model"),
        ([], {"server_type": "vlm"}, "did you mean 'vllm'"),
        ([], {"server_type": "vllm"}, "needs the address"),
        ([], {"server_address": "http://x"}, "takes no address"),
        (["--modle=x"], {}, "unknown option --modle: did you mean '--model'"),
        (["++inference.temprature=1"], {}, "did you mean 'inference.temperature'"),
        (["++inference.temperature=-1"], {}, "must not be negative"),
        (["++inference.top_k=0"], {}, "inference.top_k must be at least 1, or -1"),
        (["++max_samples=0", "++dtype=int8"], {}, "max_samples must be .*; dtype must be"),
        (["--num_random_seeds=-1"], {}, "-1 seeds cannot be"),
        (["--num_random_seeds=2", "++inference.temperature=0"], {}, "give the same answers"),
        (["stray"], {}, "'stray' is neither an option nor an override"),
    ],
)
def test_what_cannot_be_is_refused(extra, changes, message):
    with pytest.raises(OptionError, match=message):
        parse(*extra, **changes)
