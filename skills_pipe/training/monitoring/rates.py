"""What in the learning rates of a run is a mistake more often than not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

from skills_pipe.training.config.schema.policy import ObjectConfig, SchedulerConfig
from skills_pipe.training.optimizers.rehearsal import Rehearsal

_FALLEN: Final = 0.01
"""Share of its highest at which a rate is as good as over."""
_CYCLES: Final = ("CosineAnnealingWarmRestarts", "CyclicLR", "OneCycleLR")
_WAVES: Final = "num_cycles"
_HALF_A_WAVE: Final = 0.5
"""Of a cosine of transformers, which falls only; with more it is to rise again."""


def doubtful_rates(rehearsal: Rehearsal, scheduler: SchedulerConfig | None, *, total_steps: int) -> Iterator[str]:
    """A sentence for each; of a run that was not rehearsed to its end, those that show before it.

    Args:
        rehearsal: of this schedule and the optimizer of the run.
        scheduler: None: the rates are constant.
        total_steps: of the run.
    """
    known = rehearsal.whole or rehearsal.rates is None
    rates = [rehearsal.own] if rehearsal.rates is None else rehearsal.rates[:total_steps]
    if known and not any(map(any, rates)):
        why = "policy.scheduler makes it so" if any(rehearsal.own) else "set policy.lr, or the lr of policy.optimizer"
        yield f"the learning rate is 0 at every step, and the weights stay as they are: {why}"
    elif scheduler is not None and rehearsal.rates is not None:
        yield from _doubtful_schedule(rehearsal, rehearsal.rates, scheduler, total_steps)


def _doubtful_schedule(
    rehearsal: Rehearsal, rates: Sequence[Sequence[float]], scheduler: SchedulerConfig, total_steps: int
) -> Iterator[str]:
    yield from _never_begins(scheduler, total_steps)
    # Of Muon and AdamW the first; they follow the same schedule.
    first = [each[0] for each in rates]
    if rehearsal.whole:
        yield from _still_rising(first, rehearsal.own[0])
    if not any(_repeats(part) for part in scheduler.parts):
        # What rises where a part takes over does so because somebody wrote it.
        borders = [0, *scheduler.milestones, total_steps]
        found = (_rises_again(first[start:end], start) for start, end in itertools.pairwise(borders))
        yield from itertools.islice(itertools.chain.from_iterable(found), 1)


def _never_begins(scheduler: SchedulerConfig, total_steps: int) -> Iterator[str]:
    """A part takes over at the step after its milestone."""
    own = [(part, part.kwargs.get("milestones")) for part in scheduler.parts]
    inside = [one for _, given in own if isinstance(given, Sequence) for one in given if isinstance(one, int)]
    late = [str(one) for one in (*scheduler.milestones, *inside) if one >= total_steps]
    if late:
        what = f"milestone{'s' if len(late) > 1 else ''} {', '.join(late)} of policy.scheduler"
        yield f"{what} {'are' if len(late) > 1 else 'is'} never reached: the run has {total_steps:,} steps"


def _still_rising(rates: Sequence[float], own: float) -> Iterator[str]:
    """``rates`` with the one after the last step, which tells of a single step whether it is in a warmup."""
    *trained, after = rates
    if max(trained) < own and trained[-1] == max(trained) < after:
        yield (
            f"the learning rate never reaches {own:.3g}: it still rises at the last step, {len(trained):,}, to "
            f"{trained[-1]:.3g}; the warmup of policy.scheduler is as long as the run or longer"
        )


def _rises_again(rates: Sequence[float], before: int) -> Iterator[str]:
    """``rates`` of the steps after the first ``before`` ones."""
    highest, lowest_at = 0.0, None
    for index, rate in enumerate(rates):
        if lowest_at is None:
            highest = max(highest, rate)
            lowest_at = index if rate < _FALLEN * highest else None
        elif rate > _FALLEN * highest:
            top = max(rates[index:])
            yield (
                f"the learning rate rises again, from {rates[lowest_at]:.3g} at step {before + lowest_at + 1:,} to "
                f"{top:.3g} at step {before + rates.index(top, index) + 1:,}: is the schedule of policy.scheduler "
                "shorter than the run?"
            )
            return
        elif rate < rates[lowest_at]:
            lowest_at = index


def _repeats(part: ObjectConfig) -> bool:
    return part.name.rpartition(".")[2] in _CYCLES or part.kwargs.get(_WAVES, 0) > _HALF_A_WAVE
