"""The last processor: turns rows into training examples, formatted by a prompt and a chat template."""

from __future__ import annotations

import logging
import random
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from skills_pipe.artifacts.progress import Progress, ProgressReporter
from skills_pipe.errors import ConfigError
from skills_pipe.training.prepare.chat import ChatFormat, Turn
from skills_pipe.training.prepare.jsonl import Row, fingerprint
from skills_pipe.training.prepare.parallel import map_in_order
from skills_pipe.training.prepare.processor import Batch, Processor, Workspace, text_of
from skills_pipe.training.prepare.prompt import Prompt, load_prompt
from skills_pipe.training.prepare.spool import Spool
from skills_pipe.training.prepare.tally import Clocked, Tally

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Formatted(Processor):
    """What the two final processors share: prompt, tokenizer and metadata.

    Args:
        prompt_config: name of a packaged prompt, YAML file, or its contents; the bare problem when null.
        tokenizer: folder or name of a Hugging Face tokenizer; without one nothing is formatted.
        chat_template_kwargs: further values for the chat template.
        system_message: replaces the system's turn of the prompt; needs a prompt and a tokenizer.
        input_key: key of the problem.
        metadata: keys to add to every example.
        exclude_optional_keys: leave out the row's other keys.
        max_workers: processes that format examples; all cores when null.
    """

    prompt_config: str | dict[str, Any] | None = None
    tokenizer: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    system_message: str | None = None
    code_tags: str | None = None
    input_key: str = "input"
    metadata: dict[str, Any] | None = None
    exclude_optional_keys: bool = True
    max_workers: int | None = None
    _prompt: Prompt | None = field(init=False, repr=False, default=None)
    _chat: ChatFormat | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_workers is not None and self.max_workers < 1:
            raise ConfigError(f"cannot work with {self.max_workers} processes", where="max_workers")
        if self.system_message is not None and (self.prompt_config is None or self.tokenizer is None):
            raise ConfigError(
                "system_message needs prompt_config and tokenizer", where="system_message", fix="set both as well"
            )
        prompt = load_prompt(
            self.prompt_config or {"user": f"{{{self.input_key}}}"}, system_message=self.system_message
        )
        if self.tokenizer is not None:
            object.__setattr__(self, "_prompt", prompt)
            object.__setattr__(self, "_chat", ChatFormat(self.tokenizer, self.chat_template_kwargs))
            if self.prompt_config is None:
                _LOG.warning("no prompt_config: the user's turn is the text at %r alone", self.input_key)
        elif self.chat_template_kwargs:
            raise ConfigError(
                "chat_template_kwargs needs a tokenizer", where="chat_template_kwargs", fix="set ++tokenizer=PATH"
            )
        else:
            _LOG.warning("no tokenizer: input and output are written as they are, without prompt and chat template")

    @abstractmethod
    def _examples(self, rows: list[Row]) -> list[Row]:
        """The examples that rows become."""

    def _format(self, batches: Iterable[list[Row]], tally: Tally) -> Iterator[list[Row]]:
        """Examples of all batches, in order, by several processes where there is a template to apply."""
        workers = self.max_workers if self._chat is not None else 1
        source = Clocked(batches)
        start = time.perf_counter()
        for examples in map_in_order(self._examples, source, workers=workers):
            tally.seconds += time.perf_counter() - start - source.take_seconds()
            yield examples
            start = time.perf_counter()

    def _inputs(self, rows: list[Row]) -> list[str]:
        """The text before the answer, of each row."""
        if self._prompt is None or self._chat is None:
            return [text_of(row, self.input_key) for row in rows]
        return self._chat.prompts([self._prompt.messages(row) for row in rows])


@dataclass(frozen=True, kw_only=True)
class WriteFinalSftManifest(_Formatted):
    """Writes examples with ``input``, ``output``, ``expected_answer`` and metadata; the same pair only once.

    An answer that was cut off (``finish_reason`` other than ``stop``) does not get the end of its turn, so that the
    model is not taught to stop there.

    Args:
        output_key: key of the solution.
        assistant_end: text that ends an answer, in place of what the chat template writes.
    """

    output_key: str = "output"
    assistant_end: str | None = None

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """The examples, in the order of the rows."""
        before = workspace.tallies[-1] if workspace.tallies else None
        return self._write(batches, workspace.tally(type(self).__name__), before)

    def _write(self, batches: Iterable[Batch], tally: Tally, before: Tally | None) -> Iterator[Batch]:
        reporter = ProgressReporter()
        for examples in self._format(self._usable(batches, tally), tally):
            tally.kept += len(examples)
            total = max(tally.read, before.kept if before is not None else 0)
            reporter.report(Progress(done=tally.kept, total=total, unit="rows", note="writing"))
            yield examples
        reporter.report(Progress(done=tally.kept, total=tally.kept, unit="rows", note="written"), now=True)

    def _usable(self, batches: Iterable[Batch], tally: Tally) -> Iterator[list[Row]]:
        seen: set[bytes] = set()
        for batch in batches:
            start = time.perf_counter()
            tally.read += len(batch)
            rows = [row for row in batch if self._is_usable(row, seen, tally)]
            tally.seconds += time.perf_counter() - start
            yield rows

    def _is_usable(self, row: Row, seen: set[bytes], tally: Tally) -> bool:
        before = len(seen)
        seen.add(fingerprint(text_of(row, self.input_key), text_of(row, self.output_key)))
        if len(seen) == before:
            tally.dropped["repeated"] += 1
            return False
        if (
            self._chat is not None
            and not _is_complete(row)
            and row.get("reasoning_content")
            and not row[self.output_key]
        ):
            # The template would close reasoning that was never finished.
            tally.dropped["cut off while reasoning"] += 1
            return False
        return True

    def _examples(self, rows: list[Row]) -> list[Row]:
        outputs = self._outputs(rows)
        # The prompt sees the answer's text form, and not the solution.
        views = [{key: value for key, value in row.items() if key != self.output_key} for row in rows]
        views = [_with_text_answer(view) for view in views]
        inputs = self._inputs(views)
        examples = []
        for row, view, before, after in zip(rows, views, inputs, outputs, strict=True):
            if not self.exclude_optional_keys:
                example = dict(row)
            else:
                example = {"expected_answer": view["expected_answer"]} if "expected_answer" in view else {}
            example["input"] = before
            example["output"] = after
            if self.metadata:
                example.update(self.metadata)
            examples.append(example)
        return examples

    def _outputs(self, rows: list[Row]) -> list[str]:
        if self._chat is None:
            return [row[self.output_key] for row in rows]
        turns = [
            Turn(content=row[self.output_key], thinking=row.get("reasoning_content"), complete=_is_complete(row))
            for row in rows
        ]
        if self.assistant_end is None:
            return self._chat.answers(turns)
        if any(turn.thinking for turn in turns):
            raise ConfigError(
                "assistant_end cannot be used with reasoning_content, which only a chat template can write",
                where="assistant_end",
                fix="leave assistant_end out",
            )
        return [turn.content + (self.assistant_end if turn.complete else "") for turn in turns]


@dataclass(frozen=True, kw_only=True)
class WriteFinalRLManifest(_Formatted):
    """Writes problems with ``input``, ``expected_answer``, ``problem``, ``task_name`` and metadata, shuffled.

    Args:
        task_name: value for the key ``task_name``; no such key when null.
        random_seed: seed of the order.
        do_shuffle: shuffle; otherwise the rows stay in their order.
        num_output_samples: rows to keep after shuffling; all when null.
    """

    task_name: str | None = None
    random_seed: int = 0
    do_shuffle: bool = True
    num_output_samples: int | None = None

    def stream(self, batches: Iterable[Batch], workspace: Workspace) -> Iterator[Batch]:
        """The problems in their final order."""
        return self._write(batches, workspace.tally(type(self).__name__), Spool(workspace.scratch))

    def _write(self, batches: Iterable[Batch], tally: Tally, spool: Spool) -> Iterator[Batch]:
        for examples in self._format(batches, tally):
            spool.append(examples)
            tally.read += len(examples)
        order = list(range(len(spool)))
        if self.do_shuffle:
            random.Random(self.random_seed).shuffle(order)
        order = order[: self.num_output_samples]
        tally.kept = len(order)
        if tally.kept < tally.read:
            tally.dropped["downsampled"] = tally.read - tally.kept
        yield from spool.read(order)
        spool.close()

    def _examples(self, rows: list[Row]) -> list[Row]:
        views = [_with_text_answer(row) for row in rows]
        examples = []
        for row, view, text in zip(rows, views, self._inputs(views), strict=True):
            keys = ("expected_answer", "problem")
            example = {key: view[key] for key in keys if key in view} if self.exclude_optional_keys else dict(row)
            example["input"] = text
            if self.task_name is not None:
                example["task_name"] = self.task_name
            example.update(self.metadata or {})
            examples.append(example)
        return examples


def _is_complete(row: Row) -> bool:
    """Whether a generation came to its end by itself, or nothing says otherwise."""
    return row.get("finish_reason") in (None, "stop")


def _with_text_answer(row: Row) -> Row:
    """The row with its expected answer as text."""
    return row | {"expected_answer": str(row["expected_answer"])} if "expected_answer" in row else row
