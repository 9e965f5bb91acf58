"""Sizes that have to divide each other, and models that do not fit their GPUs."""

from dataclasses import replace

import pytest

from skills_pipe.pipeline.checks.finding import Severity
from skills_pipe.pipeline.checks.gpu import Gpu
from skills_pipe.pipeline.checks.sizes import check_memory, check_sizes
from skills_pipe.training.config import load_config
from skills_pipe.training.config.estimate import GIB, ModelShape, estimate_memory
from tests.training.config.test_estimate import LLAMA_8B, PUBLISHED

SHAPE = ModelShape.of(LLAMA_8B)


def policy(**changes: object):
    """The ``policy`` section; ``tensor=2`` and its like are parallel sizes, ``pipeline`` those of megatron."""
    needed = ["++policy.model_name=m", "++data.train_data_path=d.jsonl", "++sft.max_num_steps=1"]
    made = load_config(None, [*needed, "++policy.train_global_batch_size=64"]).policy
    sizes = {name: changes.pop(name) for name in ("tensor", "pipeline", "context", "expert") if name in changes}
    if "pipeline" not in sizes:
        own = {f"{name}_parallel_size": size for name, size in sizes.items()}
        return replace(made, dtensor_cfg=replace(made.dtensor_cfg, **own), **changes)
    own = {f"{name}_{'' if name == 'context' else 'model_'}parallel_size": size for name, size in sizes.items()}
    return replace(
        made,
        dtensor_cfg=replace(made.dtensor_cfg, enabled=False),
        megatron_cfg=replace(made.megatron_cfg, enabled=True, **own),
        **changes,
    )


def told(changes: dict[str, object], *, ranks: int) -> str:
    return "\n".join(map(str, check_sizes(policy(**changes), SHAPE, ranks=ranks)))


@pytest.mark.parametrize(
    ("changes", "ranks"),
    [
        *[({}, 1), ({}, 64), ({"tensor": 8}, 16), ({"tensor": 8, "context": 2}, 16)],
        *[({"tensor": 4, "pipeline": 2, "context": 2}, 16), ({"tensor": 16, "pipeline": 1}, 16)],
    ],
)
def test_sizes_that_fit_have_no_findings(changes, ranks):
    assert told(changes, ranks=ranks) == ""


@pytest.mark.parametrize(
    ("changes", "ranks", "message"),
    [
        ({"tensor": 8}, 12, "12 ranks cannot be divided into groups of 8 (tensor 8)"),
        ({"tensor": 4, "pipeline": 4}, 8, "groups of 16 (tensor 4 x pipeline 4)"),
        ({"tensor": 16}, 16, "the 8 key-value heads of the model cannot be divided over 16 ranks"),
        ({"tensor": 5}, 5, "the 128256 words of the vocabulary of the model cannot be divided over 5 ranks"),
        ({"tensor": 12}, 12, "the 32 attention heads of the model cannot be divided over 12 ranks"),
        ({"tensor": 12, "pipeline": 1}, 12, "the 32 attention heads of the model cannot be divided over 12 ranks"),
        ({"pipeline": 3}, 3, "the 32 layers of the model cannot be divided over 3 pipeline stages"),
        ({}, 65, "warning: a global batch of 64 leaves some of 65 ranks without work"),
    ],
)
def test_sizes_that_do_not_divide_are_told(changes, ranks, message):
    assert message in told(changes, ranks=ranks)


def test_copies_of_the_model_divide_the_ranks():

    made = policy()
    two = replace(made, dtensor_cfg=replace(made.dtensor_cfg, dp_replicate_size=2))
    assert check_sizes(two, None, ranks=8) == []
    assert "7 data parallel ranks cannot hold 2 copies" in str(check_sizes(two, None, ranks=7)[0])


def test_without_packing_microbatches_divide_the_batch():

    made = policy()
    plain = replace(made, sequence_packing=replace(made.sequence_packing, enabled=False))
    assert check_sizes(plain, None, ranks=8) == []
    assert "cannot be divided over 6 ranks" in str(check_sizes(plain, None, ranks=6)[0])
    assert check_sizes(made, None, ranks=6) == [], "packed rows need not be as many"


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({"context": 2}, {"model_type": "unheard-of"}, "models of the family 'unheard-of' are not supported"),
        ({}, {**LLAMA_8B, "quantization_config": {"bits": 4}}, "the model is quantized"),
        ({"tensor": 2}, {"model_type": "gpt2"}, "tensor parallelism is proven exact for llama, mistral, "),
        ({"expert": 2}, LLAMA_8B, "expert parallelism is proven exact for qwen3_moe, gpt_oss, not for llama"),
        ({"expert": 4}, {"model_type": "qwen3_moe", "num_experts": 6}, "the 6 experts of the model cannot be divided"),
        ({"tensor": 16}, LLAMA_8B, "the 8 key-value heads of the model cannot be divided over 16 ranks"),
    ],
)
def test_layouts_that_do_not_fit_a_model_or_are_not_proven_for_it_are_told(changes, model, message):
    (finding,) = check_sizes(policy(**changes), ModelShape.of(model), ranks=16, model=model)
    assert finding.severity is Severity.ERROR
    assert message in finding.what
    assert finding.where.startswith("policy.") and finding.fix


@pytest.mark.parametrize(
    ("kernel", "family", "message"),
    [
        ("flash_attn", "gpt_oss", "attention_kernel=flash_attn knows no sinks"),
        ("varlen_attn", "gpt_oss", "attention_kernel=varlen_attn knows no sinks"),
        ("varlen_attn", "gemma2", "attention_kernel=varlen_attn caps no scores"),
        ("flash_attn", "gemma2", None),
        ("varlen_attn", "llama", None),
        ("auto", "gpt_oss", None),
    ],
)
def test_a_kernel_that_computes_no_layer_of_a_model_is_told(kernel, family, message):
    made = policy()
    asked = replace(made, dtensor_cfg=replace(made.dtensor_cfg, attention_kernel=kernel))
    found = check_sizes(asked, None, ranks=1, model={"model_type": family})
    assert len(found) == (message is not None)
    assert all(message in finding.what and finding.fix.endswith("attention_kernel=auto") for finding in found)


def in_4_bit(made):
    fsdp = made.dtensor_cfg
    adapters, packed = replace(fsdp.lora_cfg, enabled=True), replace(fsdp.quantization, load_in_4bit=True)
    return replace(made, dtensor_cfg=replace(fsdp, lora_cfg=adapters, quantization=packed))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {**LLAMA_8B, "intermediate_size": 14368},
            "the rows of down_proj have 14368 weights, which are no whole blocks",
        ),
        (
            {**LLAMA_8B, "model_type": "qwen3_moe", "num_experts": 8, "moe_intermediate_size": 768},
            "the experts of a mixture are one stack of weights",
        ),
    ],
)
def test_models_that_do_not_fit_4_bit_are_told(model, message):
    (finding,) = check_sizes(in_4_bit(policy()), None, ranks=8, model=model)
    assert message in finding.what
    assert finding.where == "policy.dtensor_cfg.quantization.load_in_4bit"
    assert check_sizes(policy(), None, ranks=8, model=model) == [], "only in 4 bit"
    assert check_sizes(in_4_bit(policy()), None, ranks=8, model=LLAMA_8B) == []


def test_layouts_that_fit_a_model_have_no_findings():
    assert check_sizes(policy(context=2), None, ranks=8, model={"model_type": "gpt2"}) == []
    assert check_sizes(policy(expert=4), None, ranks=8, model={"model_type": "qwen3_moe", "num_experts": 8}) == []
    assert check_sizes(policy(context=2, pipeline=1), None, ranks=8, model={"model_type": "gpt2"}) == []


def test_ranks_of_a_copy_of_the_model_share_its_experts():
    (finding,) = check_sizes(policy(expert=3), None, ranks=8)
    assert "the 8 ranks of a copy of the model cannot be divided into groups of 3" in finding.what
    assert finding.where == "policy.expert_model_parallel_size"


def needed_gib(ranks: int) -> float:
    estimate = estimate_memory(SHAPE, policy(), ranks=ranks)
    return estimate.total / GIB


def test_a_model_that_does_not_fit_is_a_warning_with_advice():
    checked = check_memory(policy(), SHAPE, ranks=8, gpu=Gpu(gib=40))
    (finding,) = checked.findings
    assert finding.severity is Severity.WARNING
    assert f"training needs about {needed_gib(8):.3g} GiB on each GPU" in finding.what
    assert finding.what.endswith("and each has 40")
    assert finding.fix is not None and "activation_checkpointing=true" in finding.fix


def test_host_memory_is_told_where_it_is_needed():
    offload = replace(policy(), dtensor_cfg=replace(policy().dtensor_cfg, cpu_offload=True))
    told = check_memory(offload, SHAPE, ranks=8, gpu=Gpu(gib=200)).note
    assert told is not None
    assert f"{16 * SHAPE.parameters / 8 / GIB:.3g} GiB of host memory for each rank" in told
    assert "host memory" not in (check_memory(policy(), SHAPE, ranks=8, gpu=Gpu(gib=200)).note or "")


def test_who_recomputes_a_part_is_advised_to_recompute_all():
    some = replace(policy().dtensor_cfg, activation_checkpointing=True, recompute_granularity="selective")
    (finding,) = check_memory(replace(policy(), dtensor_cfg=some), SHAPE, ranks=8, gpu=Gpu(gib=30)).findings
    assert finding.fix is not None
    assert "recompute_granularity=full" in finding.fix and "activation_checkpointing" not in finding.fix


@pytest.mark.parametrize(("share", "warned"), [(0.99, True), (1.05, True), (1.2, False)])
def test_nearly_full_is_told_too(share, warned):
    gib = share * needed_gib(64)
    assert bool(check_memory(policy(), SHAPE, ranks=64, gpu=Gpu(gib=gib)).findings) is warned


def test_the_type_of_the_gpu_tells_its_memory_and_its_speed():
    checked = check_memory(policy(), SHAPE, ranks=64, gpu=Gpu(type="h100"))
    assert checked.told and "at 40% of the peak of a h100 a step of full length takes" in checked.note
    assert check_memory(policy(), SHAPE, ranks=8, gpu=Gpu(type="a100")).findings
    assert "(a100)" in check_memory(policy(), SHAPE, ranks=8, gpu=Gpu(type="a100")).findings[0].what


def test_the_configuration_knows_better_than_the_type():
    assert Gpu(type="a100", gib=80).memory == 80


def test_where_nobody_knows_the_memory_the_need_is_only_told():
    checked = check_memory(policy(), SHAPE, ranks=1, gpu=Gpu())
    assert checked.findings == () and "GiB on each GPU" in checked.note


def test_the_parts_of_the_need_are_those_that_can_be_seen():
    # 8e9 weights on 8 GPUs, 4 bytes each, of which each GPU has an eighth.
    note = check_memory(policy(), SHAPE, ranks=8, gpu=Gpu(gib=1000)).note
    parts = {name: float(size) for name, size in (part.split(" ") for part in note.split("(")[1][:-1].split(", "))}
    total = float(note.split()[1])
    assert parts["weights"] == pytest.approx(SHAPE.parameters * 4 / 8 / GIB, abs=0.06)
    assert sum(parts.values()) == pytest.approx(total, abs=0.5)
    assert all(parts.values())


def test_without_a_model_there_is_no_estimate():
    assert check_memory(policy(), None, ranks=1, gpu=Gpu(gib=1)).left_out is not None


@pytest.mark.parametrize("name", PUBLISHED)
def test_models_of_every_kind_have_an_estimate(name):
    config, parameters = PUBLISHED[name]
    checked = check_memory(policy(), ModelShape.of(config), ranks=8, gpu=Gpu(type="h100", gib=1000))
    assert checked.told and "GiB on each GPU" in checked.note and "a step of full length takes" in checked.note
    # Sixteen bytes for each weight are on eight GPUs at least.
    assert float(checked.note.split()[1]) > 16 * parameters / 8 / GIB
