"""Whether the optimizer and the schedules that the keys name exist, and take the arguments that they are given."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.checks.signature import Nowhere, Signature, signature_of
from skills_pipe.pipeline.cluster.config import ClusterConfig

if TYPE_CHECKING:
    from skills_pipe.training.config import TrainingConfig
    from skills_pipe.training.config.schema.policy import ObjectConfig

_OPTIMIZER: Final = "policy.optimizer"
_SCHEDULER: Final = "policy.scheduler"
_ADAMW, _MUON = "torch.optim.AdamW", "torch.optim.Muon"


def check_objects(config: TrainingConfig, cluster: ClusterConfig) -> list[Finding]:
    """What the packages of this machine say; those of a cluster may be of other versions: no more than warnings."""
    policy = config.policy
    named = [(_OPTIMIZER, policy.optimizer)] if policy.optimizer is not None else []
    named += [(_SCHEDULER, part) for part in (policy.scheduler.parts if policy.scheduler is not None else ())]
    tell = error if cluster.is_local else warning
    folder = cluster.working_dir if cluster.is_local else None
    problems = [problem for where, one in named for problem in _problems(one, where, folder)]
    return [tell(problem.what, where=problem.where, fix=problem.fix) for problem in problems]


def _problems(config: ObjectConfig, where: str, folder: str | None) -> Iterator[ConfigError]:
    from skills_pipe.training.config import objects

    found = signature_of(config.name, folder=folder)
    if isinstance(found, Nowhere):
        if found.names is None:
            yield objects.no_module(config.name, where)
        else:
            yield objects.no_class(config.name, found.names, where)
    elif isinstance(found, Signature) and config.name == _MUON:
        yield from _of_muon(config, found, signature_of(_ADAMW, folder=folder))
    elif found is not None:
        yield from _of_arguments(config, found, where)


def _of_arguments(config: ObjectConfig, found: Signature, where: str) -> Iterator[ConfigError]:
    from skills_pipe.training.config import objects

    # An optimizer whose rate is null gets none.
    given = {key for key, value in config.kwargs.items() if (where, key, value) != (_OPTIMIZER, objects.RATE, None)}
    if not found.takes_any:
        wrong = sorted(given - found.required.keys())
        yield from (objects.no_argument(config.name, key, found.required, where) for key in wrong)
    # The first is the optimizer of a schedule, or the weights; the length of a training is known.
    needed = [name for name, required in [*found.required.items()][1:] if required]
    for name in needed:
        if name not in {*given, objects.LENGTH}:
            fix = f"set ++{where}.kwargs.{name}" if where == _OPTIMIZER else f"add {name} to its kwargs"
            yield ConfigError(f"{config.name} needs an argument {name!r}", where=f"{where}.kwargs", fix=fix)


def _of_muon(config: ObjectConfig, muon: Signature, adamw: Signature | Nowhere | None) -> Iterator[ConfigError]:
    from skills_pipe.training.config import objects

    if not isinstance(adamw, Signature):
        return
    rest = config.kwargs.get(objects.REST, {})
    both = {*muon.required, *adamw.required}
    for key in config.kwargs.keys() - {objects.REST} - both:
        yield objects.no_argument_of_both(key, both, _OPTIMIZER)
    for key in rest.keys() - adamw.required.keys():
        yield objects.no_argument_of_both(key, adamw.required, _OPTIMIZER)
