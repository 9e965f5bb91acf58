"""Whether a model fits the GPUs that are asked for: sizes that divide each other, and memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from skills_pipe.pipeline.checks.finding import Checked, Finding, error, warning
from skills_pipe.pipeline.checks.gpu import Gpu

if TYPE_CHECKING:
    from skills_pipe.training.config import PolicyConfig
    from skills_pipe.training.config.estimate import ModelShape

_NEARLY_FULL = 0.9
"""Share of a GPU's memory from which on an estimate is no promise."""


_UTILISATION = 0.4
"""Share of its peak that a GPU reaches in training, for an idea of the time."""


def check_sizes(
    policy: PolicyConfig, shape: ModelShape | None, *, ranks: int, model: Mapping[str, Any] | None = None
) -> list[Finding]:
    """Parallel sizes, batch and model: what does not divide what it has to, and what is not proven.

    Args:
        policy: section ``policy`` of the configuration.
        shape: the model, if its sizes are known.
        ranks: processes in all: nodes times GPUs of each, or CPU processes in their place.
        model: its ``config.json``, if it is known.
    """
    found = list(_sizes(policy, ranks))
    if model is not None and policy.dtensor_cfg.enabled:
        return found + list(_unshareable(policy, model))
    return found + (list(_model_sizes(policy, shape)) if shape else [])


def check_memory(
    policy: PolicyConfig, shape: ModelShape | None, *, ranks: int, gpu: Gpu, averaged: bool = False
) -> Checked:
    """Whether training fits into the memory of each GPU, as far as arithmetic can tell."""
    # Imported here, as everywhere in the launcher: reading configurations takes longer than making a plan.
    from skills_pipe.training.config.estimate import GIB, estimate_memory, seconds_per_step

    subject = "memory of the GPUs"
    if shape is None:
        return Checked(subject=subject, left_out="the sizes of the model are not known here")
    needed = estimate_memory(shape, policy, ranks=ranks, averaged=averaged)
    if needed is None:
        return Checked(subject=subject, left_out="the optimizer is not known here")
    about = f"about {needed.total / GIB:.3g} GiB on each GPU ({needed})"
    if needed.host:
        about += f" and {needed.host / GIB:.3g} GiB of host memory for each rank"
    note = about
    if gpu.peak_tflops:
        step = seconds_per_step(shape, policy, flops=_UTILISATION * gpu.peak_tflops * 1e12 * ranks)
        note += f"; at {_UTILISATION:.0%} of the peak of a {gpu.type} a step of full length takes {step:.2g} s"
    room = gpu.memory
    if room is None or needed.total <= _NEARLY_FULL * room * GIB:
        return Checked(subject=subject, note=note, told=True)
    what = f"training needs {about}, and each has {room:g}" + (" (" + gpu.type + ")" if gpu.type else "")
    close = "" if needed.total > room * GIB else ": that is close"
    # A warning at most: an estimate stops nobody.
    found = warning(f"{what}{close}", fix=_memory_advice(policy, ranks))
    return Checked(subject=subject, findings=(found,))


def _sizes(policy: PolicyConfig, ranks: int) -> Iterator[Finding]:
    sizes = _shared(policy)
    together = sizes["tensor"] * sizes["pipeline"] * sizes["context"]
    if ranks % together:
        named = " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1)
        what = f"{ranks} {'rank' if ranks == 1 else 'ranks'} cannot be divided into groups of {together} ({named})"
        where = ", ".join(f"policy.{name}_{'' if name == 'context' else 'model_'}parallel_size" for name in sizes)
        yield error(
            what,
            where=where,
            fix="choose sizes whose product divides the number of ranks, one on each GPU or CPU process",
        )
        return
    data_parallel = ranks // together
    replicas = policy.dtensor_cfg.dp_replicate_size
    if policy.dtensor_cfg.enabled and data_parallel % replicas:
        what = f"{data_parallel} data parallel ranks cannot hold {replicas} copies of the model"
        yield error(what, where="policy.dtensor_cfg.dp_replicate_size", fix="choose a divisor of the number of ranks")
    else:
        yield from _experts(policy, data_parallel // replicas * sizes["context"])
    batch = policy.train_global_batch_size
    if not policy.sequence_packing.enabled and batch % (data_parallel * policy.train_micro_batch_size):
        what = f"a global batch of {batch} cannot be divided over {data_parallel} ranks in microbatches of "
        yield error(f"{what}{policy.train_micro_batch_size}", where="policy.train_global_batch_size")
    elif batch < data_parallel:
        what = f"a global batch of {batch} leaves some of {data_parallel} ranks without work in every step"
        yield warning(what, where="policy.train_global_batch_size", fix="raise it, or ask for fewer GPUs or processes")


def _experts(policy: PolicyConfig, copy: int) -> Iterator[Finding]:
    """Whether the ranks of a copy of the model, those of one tensor parallel group counted once, can share experts."""
    experts = policy.dtensor_cfg.expert_parallel_size
    if policy.dtensor_cfg.enabled and copy % experts:
        what = f"the {copy} ranks of a copy of the model cannot be divided into groups of {experts} that share experts"
        yield error(what, where="policy.expert_model_parallel_size", fix=f"choose a divisor of {copy}")


def _unshareable(policy: PolicyConfig, model: Mapping[str, Any]) -> Iterator[Finding]:
    """A model that is not trained at all, in 4 bit, or by this kernel; layouts that do not fit or are not proven."""
    from skills_pipe.training.config.families import untrainable
    from skills_pipe.training.config.parallel import Layout
    from skills_pipe.training.config.quantization import quantization_spec
    from skills_pipe.training.config.rules.kernels import uncomputable
    from skills_pipe.training.config.rules.parallel import unshareable
    from skills_pipe.training.config.rules.quantization import unquantizable

    fsdp = policy.dtensor_cfg
    layout = Layout(
        tensor=fsdp.tensor_parallel_size, context=fsdp.context_parallel_size, expert=fsdp.expert_parallel_size
    )
    problems = untrainable(model) or [*unshareable(model, layout), *uncomputable(model, fsdp.attention_kernel)]
    if not problems and quantization_spec(policy) is not None:
        problems = unquantizable(model)
    yield from (error(found.what, where=found.where, fix=found.fix) for found in problems)


def _model_sizes(policy: PolicyConfig, shape: ModelShape) -> Iterator[Finding]:
    sizes = _shared(policy)
    if policy.dtensor_cfg.enabled:
        yield from _fsdp_sizes(shape, sizes["tensor"])
    else:
        yield from _megatron_sizes(policy, shape, sizes)


def _megatron_sizes(policy: PolicyConfig, shape: ModelShape, sizes: dict[str, int]) -> Iterator[Finding]:
    tensor, pipeline = sizes["tensor"], sizes["pipeline"]
    if shape.heads % tensor:
        what = f"the {shape.heads} attention heads of the model cannot be divided over {tensor} ranks"
        yield error(what, where="policy.tensor_model_parallel_size", fix=f"choose a divisor of {shape.heads}")
    elif shape.kv_heads % tensor and tensor % shape.kv_heads:
        what = f"the {shape.kv_heads} key-value heads of the model do not fit {tensor} ranks"
        yield error(what, where="policy.tensor_model_parallel_size", fix=f"choose a divisor of {shape.kv_heads}")
    stages = (
        policy.megatron_cfg.num_layers_in_first_pipeline_stage,
        policy.megatron_cfg.num_layers_in_last_pipeline_stage,
    )
    if shape.layers % pipeline and stages == (None, None):
        what = f"the {shape.layers} layers of the model cannot be divided over {pipeline} pipeline stages"
        yield error(what, where="policy.pipeline_model_parallel_size", fix=f"choose a divisor of {shape.layers}")


def _shared(policy: PolicyConfig) -> dict[str, int]:
    """Ranks that share a layer, the stack of layers, a sequence, on the backend that is on."""
    fsdp, megatron = policy.dtensor_cfg, policy.megatron_cfg
    if fsdp.enabled:
        return {"tensor": fsdp.tensor_parallel_size, "pipeline": 1, "context": fsdp.context_parallel_size}
    return {
        "tensor": megatron.tensor_model_parallel_size,
        "pipeline": megatron.pipeline_model_parallel_size,
        "context": megatron.context_parallel_size,
    }


def _fsdp_sizes(shape: ModelShape, tensor: int) -> Iterator[Finding]:
    from skills_pipe.training.config.rules.parallel import indivisible

    for problem in indivisible(shape, tensor=tensor):
        yield error(problem.what, where=problem.where, fix=problem.fix)


def _memory_advice(policy: PolicyConfig, ranks: int) -> str:
    options = ["ask for more GPUs"]
    if not policy.dtensor_cfg.activation_checkpointing:
        options.append("set ++policy.dtensor_cfg.activation_checkpointing=true")
    elif policy.dtensor_cfg.recompute_granularity == "selective":
        options.append("set ++policy.dtensor_cfg.recompute_granularity=full")
    if ranks > 1 and policy.dtensor_cfg.defer_fsdp_grad_sync:
        options.append("set ++policy.dtensor_cfg.defer_fsdp_grad_sync=false")
    options.append("lower policy.max_total_sequence_length")
    return ", ".join(options[:-1]) + f", or {options[-1]}"
