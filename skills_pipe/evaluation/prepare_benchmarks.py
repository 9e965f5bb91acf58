"""Write benchmark data: ``python -m skills_pipe.evaluation.prepare_benchmarks gsm8k arithmetic --data_dir=DIR``.

Each split becomes ``DIR/<benchmark>/<split>.jsonl`` with a manifest beside it. Options of one benchmark are given as
``++<benchmark>.<option>=value``: ``++arithmetic.test_count=200``, ``++gsm8k.revision=<commit>``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import atomic, manifest
from skills_pipe.errors import OptionError, UserError, did_you_mean
from skills_pipe.evaluation.arguments import parse_known
from skills_pipe.evaluation.benchmarks.spec import Benchmark, load_benchmark
from skills_pipe.evaluation.overrides import apply_overrides, parse_overrides


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status."""
    parser = argparse.ArgumentParser(prog="prepare_benchmarks", allow_abbrev=False, description=__doc__)
    parser.add_argument("--data_dir", required=True, type=Path, help="folder to write <benchmark>/<split>.jsonl to")
    parser.add_argument("--splits", default=None, help="comma-separated; all splits of each benchmark when absent")
    try:
        options, names, overrides = parse_known(parser, sys.argv[1:] if argv is None else argv)
        splits = options.splits.split(",") if options.splits else None
        for path, rows in prepare_benchmarks(names, options.data_dir, splits, parse_overrides(overrides)).items():
            print(f"{path}: {rows} rows")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def prepare_benchmarks(
    names: Sequence[str], data_dir: Path, splits: Sequence[str] | None, overrides: Mapping[str, Any]
) -> dict[Path, int]:
    """Write the splits of the named benchmarks; returns the number of rows of each file.

    Raises:
        UserError: a name, split or option is unknown, or data cannot be fetched. All names and options are checked
            before the first file is written.
    """
    if not names:
        raise OptionError("no benchmark is named", fix="name at least one, such as gsm8k")
    benchmarks = [load_benchmark(name) for name in dict.fromkeys(names)]
    prepared = [(b, _splits(b, splits), _options(b, overrides, names)) for b in benchmarks]
    return {
        path: rows
        for benchmark, chosen, options in prepared
        for split in chosen
        for path, rows in [_write(benchmark, split, options, data_dir / benchmark.name / f"{split}.jsonl")]
    }


def _splits(benchmark: Benchmark, wanted: Sequence[str] | None) -> Sequence[str]:
    for split in wanted or ():
        if split not in benchmark.splits:
            raise OptionError(
                f"{benchmark.name} has no split {split!r}",
                where="--splits",
                fix=did_you_mean(split, benchmark.splits) or f"choose from {', '.join(benchmark.splits)}",
            )
    return wanted or benchmark.splits


def _options(benchmark: Benchmark, overrides: Mapping[str, Any], names: Sequence[str]) -> Any:
    for key in overrides:
        if key.partition(".")[0] not in names:
            raise OptionError(
                f"{key!r} does not begin with the name of a chosen benchmark", fix="write ++<benchmark>.<option>=value"
            )
    prefix = f"{benchmark.name}."
    own = {key.removeprefix(prefix): value for key, value in overrides.items() if key.startswith(prefix)}
    return apply_overrides(benchmark.prepare_module().Options(), own)


def _write(benchmark: Benchmark, split: str, options: Any, path: Path) -> tuple[Path, int]:
    data = benchmark.prepare_module().load_split(split, options)
    count = 0
    with atomic.publish_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in data.rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    manifest.seal(path, kind="benchmark_data", facts={"rows": count, **data.facts})
    return path, count


if __name__ == "__main__":
    sys.exit(main())
