"""What the model answers to questions of the validation data, beside what it should.

A question is a held-out document up to its last answer, token for token as it is trained. What is written is told in
numbers, and laid out for people to read, in ``validation-answers/step_N.jsonl`` beside the metrics.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from skills_pipe.artifacts.atomic import write_text
from skills_pipe.artifacts.names import VALIDATION_ANSWERS, step_directory
from skills_pipe.errors import ConfigError, DataError, did_you_mean
from skills_pipe.training.backends.base import Backend
from skills_pipe.training.checkpoint.ranks import on_first
from skills_pipe.training.config import TrainingConfig
from skills_pipe.training.config.schema.answers import AnswersConfig
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.models.generate import Generation, Prompt, positions_left

EXACT_MATCH = "exact_match"
_KEY = "sft.val_answers"
_TAKEN = frozenset({EXACT_MATCH, "val_loss", "dataset", "document", "prompt", "answer", "reference"})
"""Names of what is told beside the metrics of the user's own, in the log or with each answer."""

Metric = Callable[[list[str], list[str], list[str]], Mapping[str, Sequence[float]]]
"""(prompts, answers, references) -> a number for each answer, by the name of the metric."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A held-out document up to its last answer.

    Attributes:
        dataset: name of the dataset.
        document: its number there, from 0.
        prompt: its tokens, and how many may follow.
        text: the same as text.
        reference: what the document answers.
    """

    dataset: str
    document: int
    prompt: Prompt
    text: str
    reference: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The questions of a run, and what judges the answers.

    Attributes:
        questions: of all validation datasets.
        how: by which tokens an answer ends.
        metric: of the user's own, beside whether an answer is the reference.
        tokenizer: makes text of tokens.
        folder: where the answers of each validation are written.
    """

    questions: tuple[Question, ...]
    how: Generation
    metric: Metric | None
    tokenizer: PreTrainedTokenizerBase
    folder: Path

    @classmethod
    def of(
        cls,
        config: TrainingConfig,
        datasets: Mapping[str, SftDataset],
        tokenizer: PreTrainedTokenizerBase,
        model: PreTrainedModel,
    ) -> Answers | None:
        """The answers that a configuration asks for, None without.

        Raises:
            ConfigError: there is no such metric.
            DataError: a dataset has no questions.
        """
        settings = config.sft.val_answers
        if settings is None:
            return None
        found = [_questions(name, dataset, settings, tokenizer, model) for name, dataset in datasets.items()]
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        ends = {_end(ids, tokenizer) for _, answers in found for ids in answers} & special
        own = model.generation_config.eos_token_id
        stops = {*ends, *(own if isinstance(own, list) else [own]), tokenizer.eos_token_id} - {None}
        return cls(
            questions=tuple(question for questions, _ in found for question in questions),
            how=Generation(
                stop_ids=tuple(sorted(stops)), pad_id=tokenizer.pad_token_id or 0, batch_size=settings.batch_size
            ),
            metric=_metric_at(settings.metric) if settings.metric is not None else None,
            tokenizer=tokenizer,
            folder=Path(config.logger.log_dir) / VALIDATION_ANSWERS,
        )

    @property
    def tokens(self) -> int:
        """Tokens of all questions and of the longest answers."""
        return sum(len(question.prompt.ids) + question.prompt.limit for question in self.questions)

    def ask(self, backend: Backend, step: int) -> dict[str, float]:
        """Means of the metrics over all answers, and over those of each dataset; called on every rank.

        Raises:
            ConfigError: the metric gives something else than a number for each answer.
        """
        written = backend.generate([question.prompt for question in self.questions], self.how)
        texts = [str(self.tokenizer.decode(ids, skip_special_tokens=True)) for ids in written]
        # Once for all ranks: a judge may ask somebody else, or roll dice.
        values = on_first(lambda: self._judge(texts))
        on_first(lambda: self._write(texts, values, step))
        names = [question.dataset for question in self.questions]
        means = {metric: float(np.mean(each)) for metric, each in values.items()}
        for name in dict.fromkeys(names) if len(set(names)) > 1 else ():
            mine = np.array([one == name for one in names])
            means |= {f"{name}/{metric}": float(np.mean(np.array(each)[mine])) for metric, each in values.items()}
        return means

    def _judge(self, texts: Sequence[str]) -> dict[str, list[float]]:
        prompts = [question.text for question in self.questions]
        references = [question.reference for question in self.questions]
        pairs = zip(texts, references, strict=True)
        values = {EXACT_MATCH: [float(text.strip() == reference.strip()) for text, reference in pairs]}
        if self.metric is None:
            return values
        for name, found in self.metric(prompts, list(texts), references).items():
            if str(name).rpartition("/")[2] in _TAKEN:
                what = f"the metric {name!r} has a name that is taken"
                raise ConfigError(what, where=f"{_KEY}.metric", fix="call it something else")
            try:
                values[str(name)] = [float(value) for value in found]
            except (TypeError, ValueError) as error:
                raise ConfigError(f"the metric {name!r} gives no numbers: {error}", where=f"{_KEY}.metric") from error
            if len(values[str(name)]) != len(texts):
                what = f"the metric {name!r} gives {len(values[str(name)])} numbers for {len(texts)} answers"
                raise ConfigError(what, where=f"{_KEY}.metric", fix="give one for each answer")
        return values

    def _write(self, texts: Sequence[str], values: Mapping[str, Sequence[float]], step: int) -> None:
        lines = [
            {
                "dataset": question.dataset,
                "document": question.document,
                "prompt": question.text,
                "answer": text,
                "reference": question.reference,
                **{name: each[index] for name, each in values.items()},
            }
            for index, (question, text) in enumerate(zip(self.questions, texts, strict=True))
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{step_directory(step)}.jsonl"
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _end(ids: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer; templates may train the line break behind it as well."""
    return next((token for token in reversed(ids) if str(tokenizer.decode([token])).strip()), ids[-1])


def _questions(
    name: str,
    dataset: SftDataset,
    settings: AnswersConfig,
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
) -> tuple[list[Question], list[list[int]]]:
    """Questions spread evenly over a dataset, and the tokens that its documents answer them with."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, settings.num_samples).round().astype(int))
    questions, answers = [], []
    for index in chosen.tolist():
        example = dataset[index]
        begin, end = last_answer(example.loss_mask)
        ids = example.input_ids.tolist()
        # With nothing but the token that begins each text before it, there is no question.
        if begin < 2:
            continue
        limit = min(settings.max_new_tokens, positions_left(model.config, begin))
        answers.append(ids[begin:end])
        questions.append(
            Question(
                dataset=name,
                document=index,
                prompt=Prompt(ids=tuple(ids[:begin]), limit=limit),
                text=str(tokenizer.decode(ids[:begin])),
                reference=str(tokenizer.decode(ids[begin:end], skip_special_tokens=True)),
            )
        )
    if not questions:
        fix = f"leave {_KEY} out: these documents are trained from their beginning on"
        raise DataError(f"the validation data {name} have no questions", where=_KEY, fix=fix)
    return questions, answers


def last_answer(loss_mask: NDArray[Any]) -> tuple[int, int]:
    """Where the last stretch of trained tokens begins and ends; ``(0, 0)`` where nothing is trained."""
    trained = np.flatnonzero(loss_mask)
    if not len(trained):
        return 0, 0
    gaps = np.flatnonzero(np.diff(trained) > 1)
    begin = trained[gaps[-1] + 1] if len(gaps) else trained[0]
    return int(begin), int(trained[-1]) + 1


def _metric_at(path: str) -> Metric:
    module, _, name = path.rpartition(".")
    try:
        imported = importlib.import_module(module)
    except ImportError as error:
        fix = "give package.module.function, and see that PYTHONPATH has the folder of the package"
        raise ConfigError(f"cannot import {module}: {error}", where=f"{_KEY}.metric", fix=fix) from error
    found = getattr(imported, name, None)
    if not callable(found):
        fix = did_you_mean(name, [known for known, value in vars(imported).items() if callable(value)])
        raise ConfigError(f"{module} has no function {name!r}", where=f"{_KEY}.metric", fix=fix)
    return found  # type: ignore[no-any-return]
