"""Evaluate a model on one benchmark: ``python -m skills_pipe.evaluation.evaluate --benchmark=gsm8k --data_dir=DIR
--model=PATH --output_dir=OUT --server_type=hf ++key=value``.

Writes ``OUT/output.jsonl`` (or ``output-rsK.jsonl`` per seed), ``OUT/metrics.json`` and, last, the manifest; prints
the table. Started again after a kill it goes on where it was.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skills_pipe.artifacts import atomic, manifest
from skills_pipe.artifacts.names import manifest_path
from skills_pipe.errors import DataError, JobFailed, UserError
from skills_pipe.evaluation.clients.base import Answer, Client, Request
from skills_pipe.evaluation.clients.open import open_client
from skills_pipe.evaluation.grading.math import Comparison, extract_boxed, extract_pattern
from skills_pipe.evaluation.grading.pool import GradingPool, Pair
from skills_pipe.evaluation.metrics.compute import Metrics
from skills_pipe.evaluation.metrics.folders import GREEDY, SAMPLED, folder_metrics
from skills_pipe.evaluation.metrics.table import format_table
from skills_pipe.evaluation.partial import PartialAnswers
from skills_pipe.evaluation.problems import identity_of, read_problems
from skills_pipe.evaluation.prompts.template import Prompt, load_prompt
from skills_pipe.evaluation.settings import EvalSettings, Grading, Inference, parse_arguments
from skills_pipe.evaluation.watch import Watch

CHECK = "--check"
"""In front of the arguments: only judge them."""
METRICS_FILE = "metrics.json"


@dataclass(frozen=True, kw_only=True)
class _Work:
    """The problems and what to ask of the model for each of them, in the same order."""

    settings: EvalSettings
    rows: Sequence[dict[str, Any]]
    requests: Sequence[Request]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """One pass over the problems: greedy, or with one seed."""

    output: Path
    inference: Inference
    answers: PartialAnswers


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit status: 0, 2 after a user's mistake, 1 after a failure."""
    words = sys.argv[1:] if argv is None else argv
    try:
        # With --check the arguments are judged, and that is all.
        settings = parse_arguments([word for word in words if word != CHECK])
        if CHECK in words:
            return 0
        metrics = evaluate(settings)
    except (UserError, JobFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, values in metrics.items():
        print(format_table(name, values) + "\n")
    print(f"Metrics are saved to {settings.output_dir / METRICS_FILE}")
    return 0


def evaluate(settings: EvalSettings) -> dict[str, Metrics]:
    """Generate what is missing, grade, count, and seal the results; returns the metrics by benchmark and subset.

    Raises:
        UserError: data, model, prompt or folder cannot be used.
        JobFailed: too many problems stayed without an answer.
    """
    prompt = load_prompt(settings.prompt_config, system_message=settings.keys.system_message)
    rows = read_problems(settings)
    work = _Work(settings=settings, rows=rows, requests=_requests(rows, prompt, settings.data_path))
    _refuse_other_kind(settings)
    runs = _runs(settings, prompt)
    unfinished = [run for run in runs if not run.answers.finished]
    if unfinished:
        manifest_path(settings.output_dir).unlink(missing_ok=True)
        _finish(work, unfinished)
    metrics = folder_metrics(settings.benchmark.name, settings.output_dir, settings.benchmark.metric)
    atomic.write_json(settings.output_dir / METRICS_FILE, metrics)
    manifest.seal(settings.output_dir, kind="eval", facts={"metrics": metrics})
    return metrics


def _requests(rows: Sequence[dict[str, Any]], prompt: Prompt, path: Path) -> list[Request]:
    requests = []
    for position, row in enumerate(rows):
        try:
            requests.append(Request(position=position, messages=prompt.fill(row)))
        except DataError as error:
            raise DataError(error.what, where=f"{path}:{position + 1}, {error.where}", fix=error.fix) from error
    return requests


def _refuse_other_kind(settings: EvalSettings) -> None:
    """A folder holds one greedy run or sampled ones of the same settings, never both."""
    folder = settings.output_dir
    expected = {path.name for path in _outputs(settings)}
    found = {path.name for pattern in (GREEDY, SAMPLED) for path in folder.glob(pattern)}
    if found - expected:
        raise DataError(
            f"{', '.join(sorted(found - expected))} of another evaluation is there",
            where=str(folder),
            fix="remove it, or give each evaluation a folder of its own",
        )


def _outputs(settings: EvalSettings) -> list[Path]:
    if settings.seeds is None:
        return [settings.output_dir / GREEDY]
    return [settings.output_dir / f"output-rs{seed}.jsonl" for seed in settings.seeds]


def _runs(settings: EvalSettings, prompt: Prompt) -> list[_Run]:
    runs = []
    for seed, output in zip(settings.seeds or [None], _outputs(settings), strict=True):
        inference = settings.keys.inference
        answers = PartialAnswers(output, identity_of(settings, prompt, seed))
        if answers.changes:
            print(f"{output} was made with other settings, starting anew: {'; '.join(answers.changes)}")
        if answers.damaged_lines:
            print(f"{output}-async: {answers.damaged_lines} damaged line(s) are generated again")
        if seed is not None:
            inference = replace(inference, random_seed=seed)
        runs.append(_Run(output=output, inference=inference, answers=answers))
    return runs


def _finish(work: _Work, runs: Sequence[_Run]) -> None:
    """Answer and grade all runs; the model is loaded only when an answer is missing."""
    client: Client | None = None
    try:
        for run in runs:
            if len(run.answers.done) < len(work.rows):
                client = client or open_client(work.settings)
                _generate(work, run, client)
            run.answers.publish(_graded(run.answers.in_order(), work.settings.keys.eval_config))
    finally:
        if client is not None:
            client.close()


def _generate(work: _Work, run: _Run, client: Client) -> None:
    """Ask for the missing answers and put each on disk as it comes."""
    missing = [request for request in work.requests if request.position not in run.answers.done]
    total = len(work.rows)
    share = work.settings.keys.server.max_errors
    errors = 0
    title = f"{work.settings.benchmark.name}/{run.output.stem}"
    with run.answers, Watch(title, total=total, done=total - len(missing)) as watch:
        for answer in client.generate(missing, run.inference):
            run.answers.append(answer.position, work.rows[answer.position] | _fields(answer))
            watch.advance(answer.num_generated_tokens)
            errors += answer.error is not None
            if errors > share * total:
                raise JobFailed(
                    f"{errors} of {total} problems stayed without an answer (++server.max_errors={share}); "
                    f"the last one: {answer.detail}"
                )


def _fields(answer: Answer) -> dict[str, Any]:
    """What an answer adds to its row, under NeMo-Skills' names."""
    fields: dict[str, Any] = {
        "generation": answer.text,
        "num_generated_tokens": answer.num_generated_tokens,
        "finish_reason": answer.finish_reason,
        "generation_start_time": answer.started,
        "generation_end_time": answer.ended,
    }
    if answer.error is not None:
        fields |= {"error": answer.error, "detailed_error": answer.detail}
    return fields


def _graded(rows: Iterable[dict[str, Any]], grading: Grading) -> Iterator[dict[str, Any]]:
    """Each row with ``predicted_answer`` and ``symbolic_correct``, in the given order."""
    waiting: deque[dict[str, Any]] = deque()

    def pairs() -> Iterator[Pair]:
        for row in rows:
            text = row["generation"]
            boxed = grading.extract_from_boxed
            predicted = extract_boxed(text) if boxed else extract_pattern(text, grading.extract_regex)
            waiting.append(row | {"predicted_answer": predicted})
            yield Pair(expected=row["expected_answer"], predicted=predicted)

    comparison = Comparison(
        numeric_precision=grading.numeric_precision, timeout=grading.timeout, take_modulo=grading.take_modulo
    )
    with GradingPool(comparison, workers=grading.workers) as pool:
        for verdict in pool.grade(pairs()):
            row = waiting.popleft() | {"symbolic_correct": verdict.equal}
            yield row | {"grading_failure": verdict.failure} if verdict.failure else row


if __name__ == "__main__":
    sys.exit(main())
