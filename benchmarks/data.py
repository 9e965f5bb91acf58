"""Chat rows to packed token arrays: rows per second of this package, ``datasets.map`` and TRL, in turn.

::

    python benchmarks/data.py --rows 50000 --rounds 3 --peers /path/to/python

``--peers`` is the Python of an environment that has ``datasets`` and ``trl``; without it only this package is measured.
Rows are synthetic (random words, lognormal lengths), the tokenizer is a byte-level BPE of 8,000 tokens trained on them.
Each program starts afresh, and its clock runs from the first row read to the last row packed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{{ '\n' }}{% else %}{{ message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LIMIT = 1024
PROCESSES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", type=float, default=50, help="median length of an answer")
    parser.add_argument("--peers", help="Python of an environment with datasets and trl")
    parser.add_argument("--one", nargs=2, metavar=("PROGRAM", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, folder = arguments.one
        result = PROGRAMS[name](Path(folder))
        print(json.dumps({**result, "peak": _peak_megabytes()}))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_rows(folder / "rows.jsonl", arguments.rows, arguments.words)
        _train_tokenizer(folder)
        _compare(arguments, folder)


def _compare(arguments: argparse.Namespace, folder: Path) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    facts: dict[str, str] = {}
    for _ in range(arguments.rounds):
        for name in PROGRAMS:
            python = sys.executable if name.startswith("skills_pipe") else arguments.peers
            if python is None:
                continue
            argv = [python, __file__, "--one", name, str(folder)]
            before = _processor_seconds()
            # A cache of its own for every run: datasets would else give the rows of the round before.
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {"HF_HOME": cache, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
                shown = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
            result = json.loads(shown.splitlines()[-1])
            seconds[name].append(result["seconds"])
            facts[name] = (
                f"{_processor_seconds() - before:5.1f} s of processors with start, peak {result['peak']:,.0f} MB, "
                f"{result['facts']}"
            )
    first = statistics.median(next(iter(seconds.values())))
    for name, taken in seconds.items():
        if taken:
            median = statistics.median(taken)
            rate = arguments.rows / median
            print(f"{name:34} {median:7.2f} s {rate:9,.0f} rows/s  {median / first:5.2f} x  {facts[name]}")


def _peak_megabytes() -> float:
    """Most memory of this process, or of one of those that it started."""
    most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return most / 1024


def _processor_seconds() -> float:
    """Of all processes that have ended; less at the mercy of others on the machine than a clock."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ours(folder: Path, *, tiktoken: bool) -> dict[str, object]:
    from skills_pipe.training.data.build import BuildOptions, DataSettings, build_dataset
    from skills_pipe.training.data.packs import Packs
    from skills_pipe.training.data.sources import DataSource
    from skills_pipe.training.data.template import resolve_template

    tokenizer = _tokenizer(folder)
    template = resolve_template("default", tokenizer, None, "chat")
    settings = DataSettings(max_length=LIMIT, add_bos=False, add_eos=False)
    source = DataSource(path=folder / "rows.jsonl")
    began = time.monotonic()
    options = BuildOptions(workers=PROCESSES, tiktoken=tiktoken)
    made = build_dataset([source], tokenizer, template, settings, options)
    packs = Packs(made.lengths, LIMIT, "best_fit_decreasing")
    taken = time.monotonic() - began
    return {"seconds": taken, "facts": f"{made.report.tokens:,} tokens, {len(packs):,} rows, {packs.fill:.2%} full"}


def _datasets(folder: Path) -> dict[str, object]:
    import datasets

    tokenizer = _tokenizer(folder)
    datasets.disable_progress_bars()

    def encode(batch: dict[str, list[object]]) -> dict[str, list[object]]:
        made = tokenizer.apply_chat_template(
            batch["messages"], return_assistant_tokens_mask=True, return_dict=True, tokenize=True
        )
        return {"input_ids": made["input_ids"], "mask": made["assistant_masks"]}

    began = time.monotonic()
    rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    made = rows.map(encode, batched=True, remove_columns=["messages"], num_proc=PROCESSES, load_from_cache_file=False)
    taken = time.monotonic() - began
    tokens = sum(map(len, made["input_ids"]))
    return {"seconds": taken, "facts": f"{tokens:,} tokens, not packed"}


def _trl(folder: Path) -> dict[str, object]:
    import datasets
    from transformers import AutoModelForCausalLM, LlamaConfig
    from trl import SFTConfig, SFTTrainer

    datasets.disable_progress_bars()
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(vocab_size=8_000, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    began = time.monotonic()
    rows = datasets.load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train")
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        max_length=LIMIT,
        packing=True,
        packing_strategy="bfd",
        assistant_only_loss=True,
        dataset_num_proc=PROCESSES,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    made = SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=_tokenizer(folder)).train_dataset
    taken = time.monotonic() - began
    tokens = sum(map(len, made["input_ids"]))
    return {"seconds": taken, "facts": f"{tokens:,} tokens, {len(made):,} rows, {tokens / len(made) / LIMIT:.2%} full"}


PROGRAMS: dict[str, Callable[[Path], dict[str, object]]] = {
    "skills_pipe": lambda folder: _ours(folder, tiktoken=True),
    "skills_pipe, use_tiktoken=false": lambda folder: _ours(folder, tiktoken=False),
    "datasets.map, batched, no packing": _datasets,
    "TRL, packed (bfd)": _trl,
}


def _write_rows(path: Path, count: int, words_of_answer: float = 50) -> None:
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(6000)]

    def text(length: int) -> str:
        rare = [str(rng.randint(0, 10**6)) if rng.random() < 0.03 else rng.choice(words) for _ in range(length)]
        return " ".join(rare)

    with open(path, "w") as file:
        for _ in range(count):
            length = min(300, max(4, int(rng.lognormvariate(math.log(words_of_answer), 0.7))))
            messages = [
                {"role": "user", "content": text(max(2, length // 2))},
                {"role": "assistant", "content": text(length)},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")


def _train_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=8_000,
        special_tokens=["<pad>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with open(folder / "rows.jsonl") as file:
        sample = [
            message["content"]
            for line, _ in zip(file, range(5000), strict=False)
            for message in json.loads(line)["messages"]
        ]
    backend.train_from_iterator(sample, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<|im_end|>")
    made.chat_template = TEMPLATE
    made.save_pretrained(folder / "tokenizer")


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:  # noqa: F821
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder / "tokenizer")


if __name__ == "__main__":
    main()
