"""The layout of ranks that a plan makes is told in one line, with what each data parallel rank gets of a step."""

import pytest

from skills_pipe.pipeline.checks.layout import layout_of
from skills_pipe.training.config import load_config

NEEDED = ("++policy.model_name=m", "++data.train_data_path=d.jsonl", "++policy.train_global_batch_size=64")
PLAIN = "++policy.sequence_packing.enabled=false"
DATASET = "++policy.sequence_packing.scope=dataset"
TOKENS = "++policy.sequence_packing.train_mb_tokens=4096"


@pytest.mark.parametrize(
    ("keys", "ranks", "told"),
    [
        (
            ("++policy.tensor_model_parallel_size=2", TOKENS),
            16,
            "16 ranks: shard 8 x tensor 2, data parallel 8; a step has 64 documents, packed into rows of 4,096 tokens, "
            "one at a time on each",
        ),
        (
            (DATASET, TOKENS),
            8,
            "8 ranks: shard 8, data parallel 8; a step has 64 rows of 4,096 tokens, 8 for each, one at a time",
        ),
        (
            (
                PLAIN,
                "++policy.train_micro_batch_size=4",
                "++policy.context_parallel_size=2",
                "++policy.expert_model_parallel_size=4",
                "++policy.dtensor_cfg.dp_replicate_size=2",
            ),
            16,
            "16 ranks: replicate 2 x shard 4 x context 2, experts over 4, data parallel 8; a step has 64 documents, "
            "8 for each: 2 microbatches of 4",
        ),
        ((PLAIN,), 1, "1 rank; a step has 64 documents: 64 microbatches of 1"),
        (
            (DATASET, TOKENS, "++policy.train_global_batch_size=10"),
            8,
            "8 ranks: shard 8, data parallel 8; a step has 10 rows of 4,096 tokens, at most 2 for each, one at a time",
        ),
        ((DATASET, TOKENS), 1, "1 rank; a step has 64 rows of 4,096 tokens, one at a time"),
        ((TOKENS,), 1, "1 rank; a step has 64 documents, packed into rows of 4,096 tokens, one at a time"),
        (
            (PLAIN, "++policy.dynamic_batching.enabled=true", "++policy.dynamic_batching.train_mb_tokens=8192"),
            8,
            "8 ranks: shard 8, data parallel 8; a step has 64 documents, in microbatches of 8,192 tokens at most",
        ),
    ],
)
def test_the_sizes_and_the_share_of_a_step_are_told(keys, ranks, told):
    assert layout_of(load_config(None, [*NEEDED, *keys]).policy, ranks=ranks) == told
