"""What a training run is about to do, shown before its first step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import rich
from rich.markup import escape
from rich.table import Table
from transformers import PreTrainedTokenizerBase

from skills_pipe.artifacts.warnings import publish_warnings
from skills_pipe.training.config import PolicyConfig, without_effect
from skills_pipe.training.config.adapters import adapter_spec
from skills_pipe.training.config.parallel import Layout
from skills_pipe.training.config.quantization import quantization_spec
from skills_pipe.training.config.schema.training import SftConfig
from skills_pipe.training.data.from_config import TrainingData
from skills_pipe.training.data.preview import preview
from skills_pipe.training.models.lora import adapted_modules
from skills_pipe.training.models.quantized import parameter_count, quantized_matrices
from skills_pipe.training.monitoring.warnings import warnings_of
from skills_pipe.training.run import Run

Rows = list[tuple[str, str]]


def show(run: Run, data: TrainingData, tokenizer: PreTrainedTokenizerBase) -> None:
    """Print model, data, batches and schedule, one document with its loss mask, warnings, and what was resumed."""
    console = rich.get_console()
    _table("model", _model(run))
    _table("training data", data.train.report.describe())
    for name, dataset in data.validation.items():
        _table(f"validation data {name}" if len(data.validation) > 1 else "validation data", dataset.report.describe())
    _table("steps", _steps(run))
    _table("estimate", run.forecast.rows(_steps_left(run)))
    console.print("first document, trained tokens marked:", highlight=False)
    console.print(
        preview(data.train[0], tokenizer, markup=console.is_terminal), markup=console.is_terminal, soft_wrap=True
    )
    warnings = warnings_of(run, data)
    publish_warnings(warnings)
    for sentence in warnings:
        console.print(f"warning: {sentence}", style="bold yellow", highlight=False, markup=False, soft_wrap=True)
    resumed = run.resumed.warnings if run.resumed is not None else ()
    notes = [*data.notes, *resumed, *without_effect(run.config), *run.notes]
    for note in notes:
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def _model(run: Run) -> Rows:
    policy, model = run.config.policy, run.backend.trainee.model
    numbers = parameter_count(model)
    optimizer = policy.optimizer
    return [
        ("model", f"{policy.model_name} ({model.config.model_type}, {numbers:,} parameters)"),
        *_trained(run),
        *_offloaded(run),
        ("ranks", _ranks(run)),
        ("optimizer", f"{optimizer.name} {dict(optimizer.kwargs)}" if optimizer else ""),
        *_learning_rates(run),
        ("gradient clipping", f"at norm {policy.max_grad_norm}" if policy.max_grad_norm else "off"),
        *_noise(policy),
        ("activation checkpointing", _recomputed(policy)),
        *((f"{what} by", name) for what, name in run.backend.kernels.items()),
    ]


def _noise(policy: PolicyConfig) -> Rows:
    alpha = policy.neftune_noise_alpha
    return [("noise on embeddings", f"NEFTune, alpha {alpha:g}")] if alpha is not None else []


def _offloaded(run: Run) -> Rows:
    if not run.config.policy.dtensor_cfg.cpu_offload:
        return []
    if run.world.device.type == "cpu":
        return [("cpu_offload", "changes nothing without a GPU: everything is in host memory anyway")]
    return [("cpu_offload", "weights, gradients and optimizer in host memory, from which layers travel")]


def _recomputed(policy: PolicyConfig) -> str:
    if not policy.dtensor_cfg.activation_checkpointing:
        return "off"
    return "on, but for products and attention" if policy.dtensor_cfg.recompute_granularity == "selective" else "on"


def _ranks(run: Run) -> str:
    """How many there are, and what they share where it is not the weights alone: ``2 on cpu: tensor 2``."""
    told, size = f"{run.world.size} on {run.world.device.type}", run.world.size
    layout = Layout.of(run.config.policy.dtensor_cfg, ranks=size)
    return told if layout in (Layout(), Layout(shard=size)) else f"{told}: {layout}"


def _trained(run: Run) -> Rows:
    """How much of the model learns, and in which types."""
    precision, spec = run.config.policy.precision, adapter_spec(run.config.policy)
    if spec is None:
        return [("trained", "all weights"), ("precision", f"{precision}, weights and optimizer in float32")]
    model = run.backend.trainee.model
    learns = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    share = learns / parameter_count(model)
    kind = "adapters (DoRA)" if spec.decomposed else "adapters"
    dropout = f", dropout {spec.dropout:g}" if spec.dropout else ""
    where = f"of rank {spec.dim} and scale {spec.scale:g} on {len(adapted_modules(model))} linear layers{dropout}"
    return [
        ("trained", f"{learns:,} parameters ({share:.2%}): {kind} {where}"),
        ("precision", f"{precision}, adapters and optimizer in float32"),
        *_packed(run),
    ]


def _packed(run: Run) -> Rows:
    """How the linear layers below adapters are kept, where that is not as they compute."""
    kept = quantization_spec(run.config.policy)
    if kept is None:
        return []
    matrices = quantized_matrices(run.backend.trainee.model).values()
    return [("in 4 bit", f"{sum(each.numbers for each in matrices):,} parameters: {kept}")]


def _steps(run: Run) -> Rows:
    saving = run.config.checkpointing
    start = run.resumed.info.total_steps if run.resumed is not None else 0
    epochs = f"{run.total_steps / run.sampler.steps_per_epoch:.2f} epochs{_left_out(run)}"
    return [
        ("steps", f"{run.total_steps:,} of {run.sampler.batch_size} {_units(run)}, {epochs}"),
        ("starts from", f"step {start:,} of {saving.checkpoint_dir}" if start else "the model"),
        ("microbatches", _microbatches(run)),
        ("validation", _validation(run)),
        *_watched(run.config.sft),
        ("checkpoints", _checkpoints(run)),
    ]


def _steps_left(run: Run) -> int:
    return max(0, run.total_steps - (run.resumed.info.total_steps if run.resumed is not None else 0))


def _left_out(run: Run) -> str:
    """What a whole epoch does not train on, as it fills no step."""
    sampler = run.sampler
    left = sampler.num_samples % sampler.batch_size
    if not left or run.total_steps < sampler.steps_per_epoch:
        return ""
    units = "documents" if run.batches.packs is None else "rows"
    which = f", always {sampler.never_trained}" if sampler.never_trained else ""
    share = left / sampler.num_samples
    return f"; an epoch leaves out {left:,} of {sampler.num_samples:,} {units} ({share:.1%}), too few for a step{which}"


def _units(run: Run) -> str:
    """What a step takes."""
    packs = run.batches.packs
    if packs is None:
        return "documents"
    by_step = max(1, len(run.dataset) // run.sampler.batch_size)
    return (
        f"rows of {run.batches.capacity} tokens, packed over the whole data set: {len(packs):,} rows, "
        f"{packs.fill:.2%} full; an epoch has {run.sampler.steps_per_epoch:,} steps, of documents it would have "
        f"{by_step:,}"
    )


def _microbatches(run: Run) -> str:
    """Of the first global batch, with how full they are."""
    batch = run.first_batch
    count, capacity = len(batch.microbatches), run.batches.capacity
    if run.batches.dynamic is not None:
        tokens = run.batches.dynamic.tokens
        return f"{count} in the first batch, documents of similar length, {tokens} tokens at most"
    if not run.batches.packing:
        return f"{count} in the first batch, {run.batches.micro_batch_size} documents each, without padding"
    least = -(-batch.global_tokens // capacity)
    fill = batch.global_tokens / (count * capacity)
    return f"{count} in the first batch, packed to {capacity} tokens, {fill:.1%} full (at least {least} are needed)"


def _validation(run: Run) -> str:
    sft = run.config.sft
    if run.validation is None:
        return "off: no validation data"
    moments = [
        *(["at the start"] if sft.val_at_start else []),
        *([_every(sft.val_period)] if sft.val_period else []),
        *(["at the end"] if sft.val_at_end else []),
    ]
    if not moments:
        return "off"
    asked = f"; {len(run.answers.questions)} questions to answer" if run.answers is not None else ""
    return f"{', '.join(moments)}{asked}"


def _watched(sft: SftConfig) -> Rows:
    """What may end the run early, pass steps over, or is kept beside the weights."""
    rows, stopping, spikes = [], sft.early_stopping, sft.loss_spikes
    if stopping is not None:
        times = "one validation" if stopping.patience == 1 else f"{stopping.patience} validations in a row"
        lower = f", by more than {stopping.min_delta:g}" if stopping.min_delta else ""
        rows.append(("early stopping", f"after {times} without a lower {stopping.metric}{lower}"))
    if spikes is not None:
        what = f"loss or gradient norm {spikes.deviations:g} standard deviations above those of {spikes.window} steps"
        rows.append(("steps passed over", what))
    if sft.ema_decay is not None:
        rows.append(("moving average", f"of the weights, decay {sft.ema_decay:g}; exported with --ema"))
    return rows


def _checkpoints(run: Run) -> str:
    saving = run.config.checkpointing
    if not saving.enabled:
        return "off"
    period = f"{_every(saving.save_period)} and " if saving.save_period else ""
    if saving.keep_top_k is None:
        kept = "all kept"
    elif saving.metric_name is None or (saving.metric_name.startswith("val:") and run.validation is None):
        kept = f"the newest {saving.keep_top_k} kept"
    else:
        kept = f"the best {saving.keep_top_k} by {saving.metric_name} kept"
    return f"{period}at the end in {saving.checkpoint_dir}, {kept}"


def _every(period: int) -> str:
    return "every step" if period == 1 else f"every {period} steps"


def _learning_rates(run: Run) -> Rows:
    """The rates along the run; those of AdamW beside Muon only where they are others.

    The first are what ``train/lr`` will be.
    """
    rehearsal, total = run.rehearsal, run.total_steps
    if rehearsal is None:
        return [("learning rate", "")]
    if rehearsal.rates is None:
        first, *others = [_constant(rate) for rate in rehearsal.own]
    elif not rehearsal.whole:
        first, *others = [f"{rate:.3g}, scheduled" for rate in rehearsal.own]
    else:
        shown = sorted({0, total // 4, total // 2, 3 * total // 4, total - 1})
        along = zip(*rehearsal.rates, strict=True)
        first, *others = [", ".join(f"step {step + 1}: {rates[step]:.3g}" for step in shown) for rates in along]
    return [("learning rate", first), *(("learning rate of other weights", each) for each in others if each != first)]


def _constant(rate: float) -> str:
    return "found by the optimizer itself" if math.isnan(rate) else f"{rate:.3g}, constant"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    console = rich.get_console()
    if not console.is_terminal:
        for label, value in rows:
            # Not "model: model: ...".
            name = title if label == title else f"{title}: {label}"
            console.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
        return
    rows = list(rows)
    if not rows:
        return
    table = Table(title=title, title_justify="left", show_header=False)
    for label, value in rows:
        table.add_row(escape(label), escape(value))
    console.print(table)
