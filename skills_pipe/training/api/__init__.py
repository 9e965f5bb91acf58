"""Fine-tuning from Python: a model, a data set, a trainer, over the engine that jobs run.

::

    from skills_pipe.training.api import HuggingFaceModel, SFTDataset, SFTTrainer

    model = HuggingFaceModel.from_pretrained("base")
    trainer = SFTTrainer(model=model, train_dataset=SFTDataset("train.json"), config="sft_config.yaml")
    trainer.train()

:mod:`skills_pipe.training.api.trlx` has the same in the names of trlX.
"""

from skills_pipe.training.api.dataset import SFTDataset
from skills_pipe.training.api.model import HuggingFaceModel, ModelOutput
from skills_pipe.training.api.trainer import Evaluation, SFTTrainer

__all__ = ["Evaluation", "HuggingFaceModel", "ModelOutput", "SFTDataset", "SFTTrainer"]
