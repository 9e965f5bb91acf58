"""The sections of a trlX configuration; all of them cannot be changed, :meth:`TRLConfig.evolve` makes another."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.config.yaml_text import load_yaml

Section = TypeVar("Section")


@dataclass(frozen=True, kw_only=True)
class SFTConfig:
    """Supervised fine-tuning.

    Attributes:
        name: ``sftconfig``.
        gen_kwargs: how texts are generated when they are evaluated; ``max_new_tokens``, ``do_sample``, ...
    """

    name: str = "sftconfig"
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model: a folder or an id on the hub; see trlX for the rest, of which only the defaults are supported."""

    model_path: str
    model_arch_type: str = "causal"
    num_layers_unfrozen: int = -1
    peft_config: Any = None
    model_extra_configs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """The tokenizer, and the end at which texts that are too long are cut."""

    tokenizer_path: str
    padding_side: str = "left"
    truncation_side: str = "right"
    tokenizer_extra_configs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """An optimizer by trlX's name for it, and its arguments."""

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """A schedule by trlX's name for it, and its arguments."""

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long to train, with what, and where to; ``trainer`` is the name of a registered trainer."""

    total_steps: int
    seq_length: int
    epochs: int
    batch_size: int
    checkpoint_interval: int
    eval_interval: int
    pipeline: str
    trainer: str
    trainer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    project_name: str = "trlx"
    run_name: str | None = None
    entity_name: str | None = None
    group_name: str | None = None
    checkpoint_dir: str = "ckpts"
    rollout_logging_dir: str | None = None
    save_best: bool = True
    save_optimizer: bool = True
    resume_from_checkpoint: str | None = None
    tracker: str | None = "wandb"
    logging_dir: str | None = None
    tags: list[str] | None = field(default_factory=list)
    seed: int = 1000
    minibatch_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class TRLConfig:
    """A whole configuration."""

    method: SFTConfig
    model: ModelConfig
    optimizer: OptimizerConfig
    scheduler: SchedulerConfig
    tokenizer: TokenizerConfig
    train: TrainConfig

    @classmethod
    def load_yaml(cls, yml_fp: str | Path) -> TRLConfig:
        """Read a YAML file; ``1e-5`` is a number in it.

        Raises:
            ConfigError: the file cannot be read, or has unknown or missing keys.
        """
        try:
            tree = load_yaml(Path(yml_fp).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"cannot read {yml_fp}: {error.strerror}", fix="check the path") from error
        except ValueError as error:
            raise ConfigError(f"cannot read {yml_fp}: it is no text", fix="check the file") from error
        return cls.from_dict(tree)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> TRLConfig:
        """The configuration of nested mappings.

        Raises:
            ConfigError: unknown or missing keys, or a method that is not supported.
        """
        sections = {name: _mapping(value, name) for name, value in _mapping(config, "the configuration").items()}
        found = _section(cls, sections, "")
        method = str(sections["method"].get("name", "")).lower()
        if method != "sftconfig":
            raise ConfigError(
                f"the method {method!r} is not supported",
                where="method.name",
                fix="use sftconfig: supervised fine-tuning",
            )
        classes = {
            "method": SFTConfig,
            "model": ModelConfig,
            "optimizer": OptimizerConfig,
            "scheduler": SchedulerConfig,
            "tokenizer": TokenizerConfig,
            "train": TrainConfig,
        }
        return cls(**{name: _section_of(classes[name], found[name], name) for name in classes})

    def to_dict(self) -> dict[str, Any]:
        """Nested mappings, a copy."""
        return dataclasses.asdict(self)

    def evolve(self, **sections: Mapping[str, Any]) -> TRLConfig:
        """Another configuration with these values in place of its own: ``evolve(train={"seed": 1})``.

        Raises:
            ConfigError: an unknown key.
        """
        return TRLConfig.from_dict(_merged(self.to_dict(), sections))

    @classmethod
    def update(cls, baseconfig: Mapping[str, Any] | TRLConfig, config: Mapping[str, Any]) -> TRLConfig:
        """A configuration with values set by dotted names: ``{"train.seed": 1}``, or by nested mappings.

        Raises:
            ValueError: the base has no such key (a :class:`ConfigError` that is a ``ValueError`` too).
        """
        base = baseconfig.to_dict() if isinstance(baseconfig, TRLConfig) else dict(baseconfig)
        for name, value in config.items():
            nested = value
            for part in reversed(name.split(".")):
                nested = {part: nested}
            _check_present(base, nested, "")
            base = _merged(base, nested)
        return cls.from_dict(base)

    def __str__(self) -> str:
        return json.dumps(self.to_dict(), indent=4, default=str)


class UnknownParameter(ConfigError, ValueError):
    """A parameter that the configuration does not have."""


def default_sft_config() -> TRLConfig:
    """trlX's configuration of supervised fine-tuning where none is given, with the trainer that is here.

    Its trainer needs ``trainer_kwargs`` with a ``megatron_cfg``; see :func:`train.train`.
    """
    return TRLConfig(
        train=TrainConfig(
            seq_length=1024,
            epochs=100,
            total_steps=1000,
            batch_size=8,
            checkpoint_interval=10000,
            eval_interval=100,
            pipeline="PromptPipeline",
            trainer="AccelerateSFTTrainer",
        ),
        model=ModelConfig(model_path="gpt2"),
        tokenizer=TokenizerConfig(tokenizer_path="gpt2"),
        optimizer=OptimizerConfig(
            name="adamw", kwargs={"lr": 1.0e-4, "betas": (0.9, 0.95), "eps": 1.0e-8, "weight_decay": 1.0e-6}
        ),
        scheduler=SchedulerConfig(name="cosine_annealing", kwargs={"T_max": 1e12, "eta_min": 1.0e-4}),
        method=SFTConfig(gen_kwargs={"max_new_tokens": 40, "top_k": 0, "top_p": 1.0, "do_sample": True}),
    )


def _section_of(cls: type[Section], values: Mapping[str, Any], place: str) -> Section:
    return cls(**_section(cls, values, f"{place}."))


def _section(cls: type, values: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The values of a section, which are all known, and none missing."""
    fields = {entry.name: entry for entry in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise UnknownParameter(f"unknown key {place}{name}", where=f"{place}{name}", fix=did_you_mean(name, fields))
    missing = [
        f"{place}{name}"
        for name, entry in fields.items()
        if name not in values and entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"the configuration lacks {', '.join(missing)}", fix="set them")
    return dict(values)


def _mapping(value: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{place} is no section of keys", where=place, fix="write keys and values")
    return value


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in over.items():
        inside = merged.get(name)
        both = isinstance(inside, Mapping) and isinstance(value, Mapping)
        merged[name] = _merged(inside, value) if both else value
    return merged


def _check_present(base: Mapping[str, Any], over: Mapping[str, Any], place: str) -> None:
    for name, value in over.items():
        if name not in base:
            dotted = f"{place}{name}"
            raise UnknownParameter(
                f"parameter {dotted} is not present in the config", where=dotted, fix=did_you_mean(name, base)
            )
        if isinstance(value, Mapping) and isinstance(base[name], Mapping) and base[name]:
            _check_present(base[name], value, f"{place}{name}.")
