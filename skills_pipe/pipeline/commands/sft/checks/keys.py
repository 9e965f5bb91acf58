"""Checks of the keys that the trainer will get, read the same way as it reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skills_pipe.errors import ConfigError
from skills_pipe.pipeline.checks.finding import Finding, error, warning
from skills_pipe.pipeline.commands.sft.checks.objects import check_objects
from skills_pipe.pipeline.commands.sft.checks.programs import check_programs
from skills_pipe.pipeline.commands.sft.checks.steps import check_steps
from skills_pipe.pipeline.commands.sft.checks.trainer import trainer_of
from skills_pipe.pipeline.commands.sft.checks.wandb import check_wandb
from skills_pipe.pipeline.commands.sft.keys import FLAGS, Keys, keys_of, read_keys
from skills_pipe.pipeline.options.overrides import key_of, path_of

if TYPE_CHECKING:
    from skills_pipe.pipeline.checks.request import Request
    from skills_pipe.pipeline.commands.sft.options import SftOptions
    from skills_pipe.training.config import TrainingConfig

_FIXED = ("checkpointing.checkpoint_dir", "cluster.gpus_per_node", "cluster.num_nodes")
"""Keys that only the flags may set: later stages, or the job itself, go by the flag."""
_OF_FLAGS = ("policy.model_name", "data.train_data_path", "data.val_data_path")
"""Keys that name what a flag names."""


def check_training(request: Request[SftOptions]) -> list[Finding]:
    """What is wrong with the trainer's keys, and with the steps that are to be converted or averaged."""
    trainer = trainer_of(request)
    if trainer is None:
        return []
    keys = keys_of(trainer.command)
    config, problems = read_keys(keys)
    if config is None:
        return [_finding(problem, request.extras) for problem in problems]
    return [
        *map(warning, _of_the_other_backend(config, keys)),
        *_check_fixed(request.extras),
        *_check_twice(request),
        *_check_kept(config),
        *check_steps(request.options, config),
        *check_wandb(config, request.cluster),
        *check_programs(config, trainer, request.cluster),
        *check_objects(config, request.cluster),
    ]


def _check_fixed(extras: tuple[str, ...]) -> list[Finding]:
    typed = [key_of(word) for word in extras]
    return [
        error(f"{key} follows from {FLAGS[key]}", where=f"++{key}", fix=f"give {FLAGS[key]} instead")
        for key in _FIXED
        if key in typed
    ]


def _check_twice(request: Request[SftOptions]) -> Iterator[Finding]:
    """Keys beside the options that stand for them: the keys count, and who forgot one of both should know."""
    for key in _OF_FLAGS:
        flag, named = FLAGS[key], path_of(request.extras, key)
        given = getattr(request.options, flag.lstrip("-"))
        read = request.cluster.absolute_or_id
        if named is not None and given is not None and read(named) != read(given):
            what = f"{flag} has no effect: ++{key}={named} counts"
            yield warning(what, where=f"++{key}", fix="leave one of them out")


def _check_kept(config: TrainingConfig) -> list[Finding]:
    if config.checkpointing.enabled:
        return []
    what = "without checkpoints no job can go on from the one before it, and nothing of the training stays"
    return [error(what, where="++checkpointing.enabled", fix="leave it out")]


def _of_the_other_backend(config: TrainingConfig, keys: Keys) -> list[str]:
    from skills_pipe.training.config import typed_for_megatron

    return typed_for_megatron(config, keys)


def _finding(problem: ConfigError, extras: tuple[str, ...]) -> Finding:
    """A problem of the configuration; one with a key that the launcher has set names the flag."""
    typed = {key_of(word) for word in extras}
    where = problem.where
    for key, flag in FLAGS.items():
        if key not in typed and f"++{key}=" in (where or ""):
            where = flag
    return error(problem.what, where=where, fix=problem.fix)
