"""Prepares data for supervised fine-tuning: ``python -m skills_pipe.training.prepare_data ++key=value ...``.

    python -m skills_pipe.training.prepare_data \\
        ++input_files="generations/output-rs*.jsonl" ++output_path=sft-data.jsonl \\
        ++prompt_config=generic/math ++tokenizer=PATH

The keys are those of the configuration (``--config-name``, packaged: math_sft, math_rl, code_sft).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from skills_pipe.errors import OptionError, UserError, did_you_mean
from skills_pipe.training.prepare.config import check_pipeline, load_pipeline
from skills_pipe.training.prepare.run import run
from skills_pipe.training.prepare.tally import print_table

_FLAGS = ("--config-name", "--config-path", "--check", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the exit status: 0, or 2 for a mistake in what the user gave."""
    try:
        _prepare(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _prepare(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m skills_pipe.training.prepare_data",
        description="Prepare data for supervised fine-tuning.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-name", default="math_sft", help="configuration: math_sft, math_rl, code_sft or yours")
    parser.add_argument("--config-path", "--config-dir", type=Path, help="folder of your own configurations")
    parser.add_argument("--check", action="store_true", help="only judge the arguments")
    options, overrides = parser.parse_known_args(list(argv))
    for word in overrides:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            fix = did_you_mean(flag, _FLAGS) or "keys are written ++key=value"
            raise OptionError(f"there is no option {flag}", fix=fix)
    if options.check:
        check_pipeline(options.config_name, options.config_path, overrides)
        return
    start = time.perf_counter()
    pipeline = load_pipeline(options.config_name, options.config_path, overrides)
    tallies = run(pipeline)
    print_table(tallies)
    print(f"\n{tallies[-1].kept:,} rows in {pipeline.output}, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
