"""trlX's trainer of texts for NeMo, on the engine's fsdp backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from skills_pipe.artifacts.verdict import Outcome, Verdict
from skills_pipe.errors import ConfigError, did_you_mean
from skills_pipe.training.api.model import HuggingFaceModel
from skills_pipe.training.api.trlx.configs import SFTConfig, TRLConfig
from skills_pipe.training.api.trlx.megatron_cfg import engine_sections, read_megatron_cfg
from skills_pipe.training.api.trlx.registry import register_trainer
from skills_pipe.training.api.trlx.samples import Collation, Sample, tokenise
from skills_pipe.training.backends.base import TrainingDiverged
from skills_pipe.training.carry_out import carry_out
from skills_pipe.training.config import load_config
from skills_pipe.training.data.cyclic import ShuffledCyclicSequence
from skills_pipe.training.data.dataset import SftDataset
from skills_pipe.training.data.from_config import TrainingData
from skills_pipe.training.data.template import PASSTHROUGH, ChatTemplate
from skills_pipe.training.data.tokenizer import load_tokenizer
from skills_pipe.training.distributed import join
from skills_pipe.training.setup import Parts, build_run
from skills_pipe.training.signals import SignalListener

Metrics = Callable[[list[str], list[str], list[str]], Mapping[str, Sequence[float]]]
"""(texts, prompts, outputs) -> values of each text, by the name of the metric."""

_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
"""Keys of ``method.gen_kwargs`` that choose tokens at random, with ``do_sample``."""

_NEW_TOKENS = 64
"""Most tokens of a generated text, where ``method.gen_kwargs`` does not say it."""


@register_trainer
class NeMoSFTTrainer:
    """Fine-tunes on texts and dialogues: of a text every token is trained, of a dialogue its outputs, padding never.

    Started by torchrun, all ranks train one model; each of them has the whole of it again afterwards.

    Args:
        config: with ``method.name`` sftconfig.
        metric_fn: judges the texts generated for the evaluation prompts, after training.
        megatron_cfg: NeMo's sections ``trainer``, ``exp_manager`` and ``model``, or a YAML file with them. Tensor and
            pipeline parallelism are refused as the engine refuses them.
        pretrained_model: a Hugging Face folder or id; None: ``config.model.model_path``.
        stop_sequences: generated texts end before any of these.

    Raises:
        ConfigError: something that would change the result cannot be honoured.
    """

    def __init__(
        self,
        config: TRLConfig,
        metric_fn: Metrics | None = None,
        megatron_cfg: str | Path | Mapping[str, Any] | None = None,
        pretrained_model: str | None = None,
        stop_sequences: Sequence[str] = (),
    ) -> None:
        if not isinstance(config.method, SFTConfig):
            raise ConfigError("config.method must be an SFTConfig", where="method")
        _refuse_unsupported(config)
        self.config = config
        self.metric_fn = metric_fn
        self.eval_prompts: list[str] = []
        self.metrics: dict[str, float] = {}
        self._stops = tuple(stop_sequences)
        megatron = read_megatron_cfg(megatron_cfg)
        name = pretrained_model or config.model.model_path
        self._engine = load_config(engine_sections(config, megatron, name))
        self._data: Mapping[str, Any] = megatron["model"].get("data") or {}
        self.model = HuggingFaceModel.from_pretrained(name)
        self.tokenizer = load_tokenizer(config.tokenizer.tokenizer_path)
        self.tokenizer.truncation_side = config.tokenizer.truncation_side
        self.tokenizer.padding_side = config.tokenizer.padding_side
        self.model.tokenizer = self.tokenizer
        self.store: list[Sample] = []

    def make_experience(self, samples: Sequence[str | Sequence[str]], seq_length: int) -> None:
        """Tokenise texts, or dialogues ``[prompt, output, ...]``, cut to ``seq_length`` tokens.

        Raises:
            DataError: there are none, or they are neither.
        """
        self.store = tokenise(samples, self.tokenizer, seq_length)

    def learn(self) -> Verdict:
        """Train for ``trainer.max_steps`` of ``megatron_cfg``, then judge what the model writes.

        Raises:
            ConfigError: :meth:`make_experience` was not called.
            TrainingDiverged: the loss is no number any more.
        """
        if not self.store:
            raise ConfigError("there are no samples to learn from", fix="call make_experience first")
        listener = SignalListener()
        parts = Parts.of(self.tokenizer, self._training_data(), self.model.module)
        with listener.listening(), join() as world:
            verdict = carry_out(build_run(self._engine, parts, world, listener), parts)
            if world.size > 1:
                self.model.gather()
        if verdict.outcome is Outcome.FAILED:
            raise TrainingDiverged(verdict.reason, step=verdict.step)
        self.metrics = self._judge()
        return verdict

    @property
    def collation(self) -> Collation:
        """How texts become documents, by ``model.data`` of ``megatron_cfg``."""
        data = self._data
        return Collation(
            max_length=self._engine.policy.max_total_sequence_length,
            bos_id=self.tokenizer.bos_token_id if data.get("add_bos", False) else None,
            eos_id=self.tokenizer.eos_token_id if data.get("add_eos", True) else None,
            train_eos=not data.get("eod_mask_loss", False),
        )

    def _training_data(self) -> TrainingData:
        collate = self.collation
        samples = self._engine.policy.train_global_batch_size * (self._engine.sft.max_num_steps or 0)
        ordered = ShuffledCyclicSequence(samples, self.store, self.config.train.seed)
        documents = SftDataset.from_examples(collate.example(ordered[index]) for index in range(samples))
        return TrainingData(train=documents, validation={}, template=ChatTemplate(text=PASSTHROUGH))

    def _judge(self) -> dict[str, float]:
        """Means of the metrics over the texts generated for the evaluation prompts."""
        if self.metric_fn is None or not self.eval_prompts:
            return {}
        outputs = self._written(self.eval_prompts)
        texts = [prompt + output for prompt, output in zip(self.eval_prompts, outputs, strict=True)]
        judged = self.metric_fn(texts, self.eval_prompts, outputs)
        return {name: sum(values) / len(values) for name, values in judged.items()}

    def _written(self, prompts: Sequence[str]) -> list[str]:
        wanted = self.config.method.gen_kwargs
        chosen = {"temperature": 1.0} | {key: wanted[key] for key in _SAMPLING if key in wanted}
        outputs = self.model.generate_all(
            prompts,
            int(wanted.get("max_new_tokens", _NEW_TOKENS)),
            sampling=chosen if wanted.get("do_sample", False) else None,
            batch_size=self.config.train.batch_size,
        )
        return [self._stopped(output) for output in outputs]

    def _stopped(self, text: str) -> str:
        for stop in self._stops:
            text = text.split(stop)[0]
        return text.rstrip() if self._stops else text


def _refuse_unsupported(config: TRLConfig) -> None:
    model = config.model
    refused = {
        "model.model_arch_type": model.model_arch_type != "causal",
        "model.num_layers_unfrozen": model.num_layers_unfrozen != -1,
        "model.peft_config": model.peft_config is not None,
        "model.model_extra_configs": bool(model.model_extra_configs),
        "tokenizer.tokenizer_extra_configs": bool(config.tokenizer.tokenizer_extra_configs),
        "train.resume_from_checkpoint": config.train.resume_from_checkpoint is not None,
    }
    for key, given in refused.items():
        if given:
            raise ConfigError(f"{key} is not supported yet", where=key, fix="leave it out: all weights are trained")
    known = ("max_new_tokens", "do_sample", *_SAMPLING)
    for key in config.method.gen_kwargs:
        if key not in known:
            fix = did_you_mean(key, known) or f"use {', '.join(known)}"
            raise ConfigError(f"method.gen_kwargs.{key} is not supported", where=f"method.gen_kwargs.{key}", fix=fix)
