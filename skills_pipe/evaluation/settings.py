"""What an evaluation does: the options of the program and its ``++`` keys, as one frozen value."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.names import ENV_SERVER_ADDRESS
from skills_pipe.errors import OptionError, did_you_mean
from skills_pipe.evaluation.arguments import parse_known
from skills_pipe.evaluation.benchmarks.spec import Benchmark, load_benchmark
from skills_pipe.evaluation.overrides import apply_overrides, parse_overrides

SERVER_TYPES = ("hf", "vllm", "sglang", "trtllm", "megatron", "generic", "openai")
"""``hf`` generates in this process; the others are servers that speak the OpenAI protocol."""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How texts are generated.

    Attributes:
        tokens_to_generate: most new tokens of one answer.
        temperature: 0 takes the likeliest token each time; otherwise logits are divided by it and sampled from.
        top_k: sample among so many likeliest tokens; -1: all.
        top_p: sample among the likeliest tokens that together have this probability.
        min_p: drop tokens less likely than this share of the likeliest one.
        repetition_penalty: 1 changes nothing.
        random_seed: of the first run; runs of several seeds count on from it.
        stop_phrases: an answer ends before the first of these texts.
        batch_size: prompts that are generated side by side (``hf`` only); changes speed, not answers.
        timeout: seconds for one answer of a server.
    """

    tokens_to_generate: int = 2048
    temperature: float = 0.0
    top_k: int = -1
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    random_seed: int = 0
    stop_phrases: tuple[str, ...] = ()
    batch_size: int = 64
    timeout: float = 14400.0


@dataclass(frozen=True, kw_only=True)
class Grading:
    """How answers are compared; the names are those of NeMo-Skills' ``eval_config``.

    Attributes:
        numeric_precision: decimals to which numbers are compared.
        timeout: seconds for comparing one pair of expressions.
        take_modulo: compare whole numbers modulo this.
        extract_from_boxed: take the last ``\\boxed{}``; otherwise the first group of ``extract_regex``.
        extract_regex: pattern with one group.
        workers: processes that compare side by side.
    """

    numeric_precision: int = 15
    timeout: int = 10
    take_modulo: int | None = None
    extract_from_boxed: bool = True
    extract_regex: str = r"The final answer is (.+)$"
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class Server:
    """How a server is talked to.

    Attributes:
        model: name of the model in requests; the ``--model`` option when absent.
        max_concurrent_requests: answers waited for at the same time.
        max_retries: further attempts after a refused connection, a timeout, or an answer 408, 409, 429 or 5xx.
        startup_timeout: seconds to wait until the server answers at all.
        max_errors: share of problems that may stay without an answer before the evaluation stops.
        api_key_env_var: environment variable with the key; ``OPENAI_API_KEY`` for ``openai``, else none.
        extra_body: further fields of each request, as they stand.
    """

    model: str | None = None
    max_concurrent_requests: int = 64
    max_retries: int = 3
    startup_timeout: float = 60.0
    max_errors: float = 0.05
    api_key_env_var: str | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Everything that ``++key=value`` can set.

    Attributes:
        prompt_config: name of a packaged prompt or path of a YAML file; the benchmark's own when absent.
        system_message: replaces the prompt's system message.
        chat_template_kwargs: passed to the chat template (``{enable_thinking: false}``).
        max_samples: evaluate the first so many problems only; -1: all.
        device: ``cpu``, ``cuda``, ``cuda:1``; the first accelerator, else the CPU, when absent (``hf`` only).
        dtype: ``float32``, ``bfloat16``, ``float16`` or ``auto``, the type of the checkpoint (``hf`` only).
    """

    inference: Inference = field(default_factory=Inference)
    eval_config: Grading = field(default_factory=Grading)
    server: Server = field(default_factory=Server)
    prompt_config: str | None = None
    system_message: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    max_samples: int = -1
    device: str | None = None
    dtype: str = "auto"


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """One evaluation: a model on a split of a benchmark, greedy or with several seeds.

    Attributes:
        seeds: None for one greedy run to ``output.jsonl``; else the seeds K of the runs to ``output-rsK.jsonl``.
    """

    benchmark: Benchmark
    data_dir: Path
    split: str
    model: str
    output_dir: Path
    server_type: str
    server_address: str | None
    seeds: tuple[int, ...] | None
    keys: Overrides

    @property
    def data_path(self) -> Path:
        """File with the problems."""
        return self.data_dir / self.benchmark.name / f"{self.split}.jsonl"

    @property
    def prompt_config(self) -> str:
        """The prompt to use: the one asked for, else the benchmark's."""
        return self.keys.prompt_config or self.benchmark.prompt_config


def parse_arguments(argv: Sequence[str]) -> EvalSettings:
    """Settings from the command line of :mod:`skills_pipe.evaluation.evaluate`.

    Raises:
        OptionError: an option or key is unknown, missing, or has a value that cannot be.
    """
    options, words, tokens = parse_known(_parser(), argv)
    if words:
        raise OptionError(f"{words[0]!r} is neither an option nor an override", fix="write --name=value or ++key=value")
    benchmark = load_benchmark(options.benchmark)
    seeds = _seeds(options.num_random_seeds, options.starting_seed)
    keys = _keys(benchmark, parse_overrides(tokens), sampled=seeds is not None)
    address = options.server_address or _address_in_job(options.server_type)
    _check_server(options.server_type, address)
    return EvalSettings(
        benchmark=benchmark,
        data_dir=options.data_dir,
        split=options.split or benchmark.default_split,
        model=options.model,
        output_dir=options.output_dir,
        server_type=options.server_type,
        server_address=address,
        seeds=seeds,
        keys=keys,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate",
        allow_abbrev=False,
        description="Evaluate a model on one benchmark.",
        epilog="++key=value: inference.*, eval_config.*, server.*, prompt_config, system_message, "
        "chat_template_kwargs, max_samples, device, dtype",
    )
    parser.add_argument("--benchmark", required=True, help="name of the benchmark")
    parser.add_argument("--data_dir", required=True, type=Path, help="folder with <benchmark>/<split>.jsonl")
    parser.add_argument("--model", required=True, help="folder or hub name of the model")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder for the results of this benchmark")
    parser.add_argument("--server_type", required=True, help=", ".join(SERVER_TYPES))
    parser.add_argument(
        "--server_address",
        default=None,
        help=f"http://host:port of a running server; ${ENV_SERVER_ADDRESS} when absent: that of the same job",
    )
    parser.add_argument("--split", default=None, help="the benchmark's own default when absent")
    parser.add_argument("--num_random_seeds", type=int, default=0, help="sampled runs; 0: one greedy run")
    parser.add_argument("--starting_seed", type=int, default=0, help="seed of the first sampled run")
    return parser


def _seeds(count: int, first: int) -> tuple[int, ...] | None:
    if count < 0:
        raise OptionError(f"{count} seeds cannot be", where="--num_random_seeds", fix="give 0 for one greedy run")
    return tuple(range(first, first + count)) if count else None


def _keys(benchmark: Benchmark, values: dict[str, Any], *, sampled: bool) -> Overrides:
    """Defaults, then the benchmark's, then what the user set; several runs sample unless the user says otherwise."""
    defaults = {f"inference.{key}": value for key, value in benchmark.inference.items()}
    if sampled:
        defaults["inference.temperature"] = 0.7
    keys = apply_overrides(Overrides(), defaults | values)
    _check_ranges(keys)
    if sampled and keys.inference.temperature == 0:
        raise OptionError(
            "several seeds at temperature 0 give the same answers",
            where="++inference.temperature",
            fix="set it above 0, or leave --num_random_seeds out",
        )
    return keys


def _check_ranges(keys: Overrides) -> None:
    inference, server = keys.inference, keys.server
    rules = {
        "inference.tokens_to_generate must be at least 1": inference.tokens_to_generate >= 1,
        "inference.temperature must not be negative": inference.temperature >= 0,
        "inference.top_k must be at least 1, or -1 for all": inference.top_k >= 1 or inference.top_k == -1,
        "inference.top_p must be above 0 and at most 1": 0 < inference.top_p <= 1,
        "inference.min_p must be between 0 and 1": 0 <= inference.min_p <= 1,
        "inference.repetition_penalty must be above 0": inference.repetition_penalty > 0,
        "inference.batch_size must be at least 1": inference.batch_size >= 1,
        "server.max_concurrent_requests must be at least 1": server.max_concurrent_requests >= 1,
        "server.max_retries must not be negative": server.max_retries >= 0,
        "server.max_errors must be between 0 and 1": 0 <= server.max_errors <= 1,
        "eval_config.timeout must be at least 1": keys.eval_config.timeout >= 1,
        "eval_config.workers must be at least 1": keys.eval_config.workers >= 1,
        "max_samples must be at least 1, or -1 for all": keys.max_samples >= 1 or keys.max_samples == -1,
        "dtype must be auto, float32, bfloat16 or float16": keys.dtype in ("auto", "float32", "bfloat16", "float16"),
    }
    broken = [rule for rule, holds in rules.items() if not holds]
    if broken:
        raise OptionError("; ".join(broken), where="++ overrides")


def _address_in_job(server_type: str) -> str | None:
    """Where the server of this job answers; services elsewhere are not meant by it."""
    return None if server_type in ("hf", "openai") else os.environ.get(ENV_SERVER_ADDRESS)


def _check_server(server_type: str, address: str | None) -> None:
    if server_type not in SERVER_TYPES:
        raise OptionError(
            f"there is no server type {server_type!r}",
            where="--server_type",
            fix=did_you_mean(server_type, SERVER_TYPES) or f"choose one of {', '.join(SERVER_TYPES)}",
        )
    if server_type == "hf" and address:
        raise OptionError(
            "server type hf generates in this process and takes no address",
            where="--server_address",
            fix="leave it out, or name the type of the server",
        )
    if server_type != "hf" and not address:
        raise OptionError(
            f"server type {server_type} needs the address of a running server",
            where="--server_address",
            fix="give --server_address=http://host:port, or --server_type=hf to generate in this process",
        )
