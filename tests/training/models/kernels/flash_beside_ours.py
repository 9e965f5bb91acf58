"""FlashAttention's public function beside ours, as relative differences and verdicts: run by the peers' python.

Its kernels for CUDA cannot run without a GPU. Those that it brings for AMD are written in Triton, whose interpreter
runs them on the host, with ``FLASH_ATTENTION_TRITON_AMD_ENABLE=TRUE TRITON_INTERPRET=1``: the same function, with the
same arguments. They know nothing of windows and caps and say nothing about it, which the trial has to see.
"""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace
from typing import Any

import torch
import triton

from skills_pipe.training.data.batches import build_microbatch
from skills_pipe.training.models.attention import Documents
from skills_pipe.training.models.kernels import varlen
from skills_pipe.training.models.kernels.agreement import disagreement
from skills_pipe.training.models.kernels.attention_cases import Attention
from skills_pipe.training.models.loss import SupervisedLoss
from skills_pipe.training.models.recompute import recompute_layers
from skills_pipe.training.models.scores import Scores
from tests.training.backends.scenario import BATCH, dataset
from tests.training.models.kernels import documented
from tests.training.tiny import tiny_model

CPU = torch.device("cpu")
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 16},
    "as many heads": {"head_dim": 16, "num_key_value_heads": 4},
    "qwen3": {"architecture": "qwen3", "head_dim": 32},
    "gpt2": {"architecture": "gpt2", "hidden_size": 64},
}
LAYERS = {
    "plain": Scores(scaling=0.25),
    "another scale": Scores(scaling=0.2),
    "windows": Scores(scaling=0.25, window=9),
    "caps": Scores(scaling=0.25, softcap=50.0),
}
calls = {"_flash_attn_varlen_forward": 0, "_flash_attn_varlen_backward": 0}


def on_the_host() -> Any:
    """The module of the public function. What it registers for CUDA alone works on the host then; calls are counted."""
    # The kernels ask which device there is; the interpreter needs none.
    device = SimpleNamespace(backend="cuda", arch=80)
    triton.runtime.driver.set_active(SimpleNamespace(get_current_target=lambda: device))
    from flash_attn import flash_attn_interface

    for name in calls:
        operation = getattr(flash_attn_interface, name)

        def counted(*args: Any, _name: str = name, _compute: Any = operation._init_fn, **more: Any) -> Any:
            calls[_name] += 1
            return _compute(*args, **more)

        operation.register_kernel("cpu")(counted)
    return flash_attn_interface


def differentiated(model: torch.nn.Module, kernel: Any) -> list[torch.Tensor]:
    """Loss and gradients of packed rows."""
    rows = build_microbatch(dataset(), range(BATCH // 2))
    model.zero_grad()
    loss = SupervisedLoss(model, attention_kernel=kernel)(
        rows.input_ids, rows.position_ids, rows.labels, Documents.of(rows.cu_seqlens), scale=0.01
    )
    loss.backward()
    return [loss.detach(), *(one.grad.clone() for one in model.parameters())]


def difference(kernel: Any, **changes: Any) -> float:
    """The largest relative difference of the loss and of all gradients."""
    model = tiny_model(**changes)
    ours, theirs = (differentiated(model, each) for each in (None, kernel))
    least = 0.1 * torch.nn.utils.get_total_norm(ours[1:])
    return max(float((b - a).norm() / torch.maximum(a.norm(), least)) for a, b in zip(ours, theirs, strict=True))


def calls_with(granularity: Any, kernel: Any) -> int:
    """How often attention is computed forward in one step of a model that computes parts of itself again."""
    model = tiny_model("llama", head_dim=16).train()
    recompute_layers(model, granularity)
    before = calls["_flash_attn_varlen_forward"]
    differentiated(model, kernel)
    return calls["_flash_attn_varlen_forward"] - before


def verdict(kernel: Any, layer: Scores, dtype: torch.dtype) -> str | None:
    """What the trial at the start of a training says."""
    sizes = Attention(heads=4, kv_heads=2, head_dim=16, layers=(layer,))
    return disagreement(kernel, None, sizes.cases(kernel, dtype, CPU), dtype)


def parameters(function: Any) -> list[str]:
    """Of a public function, without what only tests have."""
    return [each.name for each in inspect.signature(function).parameters.values() if each.kind != each.KEYWORD_ONLY]


if __name__ == "__main__":
    public = on_the_host()
    found = varlen.flash_attn_2(CPU)
    assert found is not None
    anywhere = documented.InAnyPrecision(name=found.name, compute=found.compute, caps=True)
    told = {
        "name": found.name,
        "same": {name: difference(anywhere, **changes) for name, changes in FAMILIES.items()},
        "verdicts": {name: verdict(anywhere, layer, torch.float32) for name, layer in LAYERS.items()},
        "calls": {how: calls_with(how, anywhere) for how in ("selective", "full")},
        # In bfloat16 the interpreter multiplies bits instead of numbers.
        "in half precision": verdict(found, LAYERS["plain"], torch.float16),
        "arguments": parameters(public.flash_attn_varlen_func),
        "documented": parameters(documented.flash_attn_varlen_func),
    }
    print(json.dumps(told))
