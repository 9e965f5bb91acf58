"""How the ranks of a training share its work, in one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skills_pipe.training.config import PolicyConfig


def layout_of(policy: PolicyConfig, *, ranks: int) -> str:
    """The sizes that ``ranks`` are divided into, and what each data parallel one of them gets of a step.

    Raises:
        ConfigError: the sizes do not divide the ranks.
    """
    # Imported here, as everywhere in the launcher: reading configurations takes longer than making a plan.
    from skills_pipe.training.config.parallel import Layout

    layout = Layout.of(policy.dtensor_cfg, ranks=ranks)
    data = layout.replicate * layout.shard
    sizes = f"{ranks} ranks: {layout}, data parallel {data}" if ranks > 1 else "1 rank"
    return f"{sizes}; a step has {_step(policy, data)}"


def _step(policy: PolicyConfig, data: int) -> str:
    """The documents of a step, and how many of them are computed at a time; how many rows they fill the data decide."""
    packing, grouping, batch = policy.sequence_packing, policy.dynamic_batching, policy.train_global_batch_size
    if packing.enabled and packing.scope == "dataset":
        return f"{batch:,} rows of {packing.train_mb_tokens:,} tokens{_share(batch, data)}, one at a time"
    if packing.enabled:
        each = " on each" if data > 1 else ""
        return f"{batch:,} documents, packed into rows of {packing.train_mb_tokens:,} tokens, one at a time{each}"
    if grouping.enabled:
        return f"{batch:,} documents, in microbatches of {grouping.train_mb_tokens:,} tokens at most"
    # Sizes that do not divide each other are refused.
    micro = policy.train_micro_batch_size
    count = batch // data // micro
    return f"{batch:,} documents{_share(batch, data)}: {count:,} microbatch{'es' * (count > 1)} of {micro:,}"


def _share(batch: int, data: int) -> str:
    """What each of ``data`` ranks gets of ``batch``; nothing where one gets all."""
    if data == 1:
        return ""
    most = "at most " * (batch % data > 0)
    return f", {most}{-(-batch // data):,} for each"
