"""Fine-tune on two texts; run it beside the folder configs."""

from skills_pipe.training.api import trlx
from skills_pipe.training.api.trlx import TRLConfig

# 1. Prepare training samples
samples = [
    "Human: What is AI?\nAssistant: AI stands for Artificial Intelligence.",
    "Human: Hello\nAssistant: Hi there!",
]
# 2. Configure SFT with NeMo
config = TRLConfig.load_yaml("configs/nemo_sft_config.yml")
# 3. Train
trainer = trlx.train(
    samples=samples,
    config=config,
)
