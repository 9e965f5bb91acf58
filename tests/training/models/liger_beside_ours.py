"""The loss by Liger's kernels beside ours, as relative differences by case: run by the peers' python.

Without a GPU Triton's interpreter runs the kernels, with ``TRITON_INTERPRET=1``.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from liger_kernel.ops import cross_entropy
from triton import language

from skills_pipe.training.config.adapters import AdapterSpec
from skills_pipe.training.data.batches import build_microbatch
from skills_pipe.training.models import loss as losses
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.loss_cases import LossCase, ours
from skills_pipe.training.models.liger import summed_by_liger
from skills_pipe.training.models.lora import freeze_but_adapters, initialise
from skills_pipe.training.models.loss import SupervisedLoss
from tests.training.backends.scenario import BATCH, dataset
from tests.training.tiny import tiny_model

SCALE = 0.37
ADAPTERS = AdapterSpec(dim=4, alpha=8)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "tied words": {"architecture": "qwen2", "tie_word_embeddings": True},
    "capped": {"architecture": "gemma2", "final_logit_softcapping": 1.5},
    "odd vocabulary": {"vocab_size": 281},
}


class Number(float):
    """As compiled kernels see numbers; the interpreter hands a float over as it is."""

    def to(self, dtype: Any) -> Number:
        return self


def tanh(x: Any) -> Any:
    """Of CUDA's library, which the interpreter does not have."""
    return 2.0 / (1.0 + language.exp(-2.0 * x)) - 1.0


def interpreted(*args: Any, softcap: float | None = None, **settings: Any) -> torch.Tensor:
    return summed_by_liger(*args, softcap=None if softcap is None else Number(softcap), **settings)


def difference(model: torch.nn.Module, *, trained: int | None = None, weights: bool = False) -> float:
    """The largest relative difference of the loss and of all gradients; ``trained`` is the number of labels left.

    Gradients that are less than a tenth of all are compared with that tenth: some are small sums of large terms.
    """
    rows = build_microbatch(dataset(), range(BATCH))
    labels = rows.labels.clone()
    if trained is not None:
        labels[:, (labels[0] != -100).nonzero().squeeze(1)[trained:]] = -100
    factors = torch.linspace(0, 2, labels.shape[1])[None] if weights else None
    found = []
    for kernel in ("chunked", "liger"):
        model.zero_grad()
        loss = SupervisedLoss(model, loss_kernel=kernel)(
            rows.input_ids, rows.position_ids, labels, Documents.of(rows.cu_seqlens), scale=SCALE, weights=factors
        )
        loss.backward()
        gradients = {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
        found.append((loss.detach(), gradients))
    (our_loss, ours), (their_loss, theirs) = found
    if ours.keys() != theirs.keys():
        return float("inf")
    least = 0.1 * torch.nn.utils.get_total_norm(ours.values()).clamp_min(1e-8)
    apart = [(theirs[name] - ours[name]).norm() / torch.maximum(ours[name].norm(), least) for name in ours]
    return float(torch.stack([*apart, (their_loss - our_loss).abs() / our_loss.clamp_min(1e-8)]).max())


def adapted() -> torch.nn.Module:
    """A model of which adapters learn, and no output layer."""
    model = tiny_model("llama")
    freeze_but_adapters(model, ADAPTERS, torch.float32)
    initialise(model, ADAPTERS, seed=3)
    return model


def evaluated() -> float:
    """Without gradients."""
    hidden, weight, labels = torch.randn(9, 16), torch.randn(33, 16, requires_grad=True), torch.arange(9)
    with torch.no_grad():
        ours, theirs = (
            by(hidden, weight, labels, scale=SCALE) for by in (losses.summed_cross_entropy, summed_by_liger)
        )
    return float(abs(ours - theirs) / ours)


def wrongly(**changes: Any) -> float:
    """The comparison with something else than what was asked for."""
    losses.summed_by_liger = lambda *args, **settings: interpreted(*args, **{**settings, **changes})
    try:
        return difference(tiny_model("gemma2", final_logit_softcapping=1.5))
    finally:
        losses.summed_by_liger = interpreted


def verdicts() -> dict[str, str | None]:
    """What the trial at the start of a training says, which compares in half precision too."""

    def capless(*args: Any, softcap: float | None = None, **settings: Any) -> torch.Tensor:
        return interpreted(*args, **settings)

    told = {}
    for dtype in (torch.float32, torch.float16):
        plain, capped = (LossCase.of((2500, 96), softcap, dtype, torch.device("cpu")) for softcap in (None, 30.0))
        told[f"plain, {dtype}"] = disagreement(interpreted, ours, [plain], dtype)
        told[f"capped, {dtype}"] = disagreement(interpreted, ours, [capped], dtype)
        told[f"no cap, {dtype}"] = disagreement(capless, ours, [capped], dtype)
    return told


if __name__ == "__main__":
    torch.manual_seed(0)
    losses.summed_by_liger = interpreted
    cross_entropy.tanh = tanh
    same = {name: difference(tiny_model(**changes)) for name, changes in FAMILIES.items()}
    same |= {
        "a single row": difference(tiny_model("llama"), trained=1),
        "nothing trained": difference(tiny_model("llama"), trained=0),
        "weights": difference(tiny_model("llama"), weights=True),
        "adapters": difference(adapted()),
        "evaluated": evaluated(),
    }
    controls = {"no cap": wrongly(softcap=None), "another scale": wrongly(scale=SCALE * (1 + 1e-4))}
    print(json.dumps({"same": same, "controls": controls, "verdicts": verdicts()}))
