"""Every benchmark folder is complete, and a wrong name gets advice."""

import dataclasses

import pytest

from skills_pipe.errors import OptionError
from skills_pipe.evaluation.benchmarks import spec
from skills_pipe.evaluation.benchmarks.spec import benchmark_names, load_benchmark
from skills_pipe.evaluation.metrics.compute import METRICS
from skills_pipe.evaluation.overrides import apply_overrides
from skills_pipe.evaluation.prompts.template import load_prompt
from skills_pipe.evaluation.settings import Inference


def test_the_benchmarks_of_this_version_are_there():
    assert benchmark_names() == ["arithmetic", "gsm8k"]


@pytest.mark.parametrize("name", benchmark_names())
def test_everything_that_a_benchmark_names_exists(name):
    benchmark = load_benchmark(name)
    assert benchmark.description
    assert benchmark.metric in METRICS
    assert benchmark.default_split in benchmark.splits
    assert "{problem}" in load_prompt(benchmark.prompt_config).user
    assert apply_overrides(Inference(), benchmark.inference).tokens_to_generate > 0
    module = benchmark.prepare_module()
    assert dataclasses.is_dataclass(module.Options)
    assert callable(module.load_split)


def test_an_unknown_benchmark_gets_advice():
    with pytest.raises(OptionError, match="did you mean 'gsm8k'"):
        load_benchmark("gsm8")
    with pytest.raises(OptionError, match="choose one of arithmetic, gsm8k"):
        load_benchmark("../../etc")


def test_a_misspelt_key_in_a_benchmark_file_is_an_error(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    text = (spec._ROOT / "arithmetic" / "benchmark.yaml").read_text()
    monkeypatch.setattr(spec, "_ROOT", tmp_path)
    (folder / "benchmark.yaml").write_text(text)
    assert load_benchmark("mine").name == "mine"
    (folder / "benchmark.yaml").write_text(text.replace("metric:", "metrics:"))
    with pytest.raises(OptionError, match=r"unknown key 'metrics'.*did you mean 'metric'"):
        load_benchmark("mine")
