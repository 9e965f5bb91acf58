"""What other programs answer, as JSON: ``python -m tests.training.golden.peers.record trl|torchtune|torchdata``.

For a Python that has these packages; nothing of skills_pipe is used, so that the answers are theirs alone.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

Answer = dict[str, Any]

IGNORE = -100
CAPACITY = 128


def main(name: str) -> None:
    packages, answer = PEERS[name]
    print(as_text({"versions": {package: version(package) for package in packages}, **answer()}))


def as_text(answers: Answer) -> str:
    """JSON with a line for each case."""
    parts = []
    for name, value in answers.items():
        cases = [json.dumps(case) for case in value] if isinstance(value, list) else []
        text = "[\n  " + ",\n  ".join(cases) + "\n ]" if cases else json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n " + ",\n ".join(parts) + "\n}"


# Inputs


def lognormal(seed: int, count: int) -> list[int]:
    """Lengths as documents have them, from 2 to CAPACITY."""
    rng = random.Random(seed)
    return [min(max(round(rng.lognormvariate(3.2, 0.8)), 2), CAPACITY) for _ in range(count)]


def documents(seed: int, count: int) -> list[Answer]:
    """Token ids that are all different, and masks whose first value is 0."""
    rng = random.Random(seed)
    found, next_id = [], 1
    for _ in range(count):
        length = rng.randint(2, 12)
        mask = [0, *(int(rng.random() < 0.6) for _ in range(length - 1))]
        found.append({"ids": list(range(next_id, next_id + length)), "mask": mask})
        next_id += length
    return found


def chats() -> list[Answer]:
    """Conversations of one and of several turns, with and without a system prompt."""
    questions = ["What is 2 plus 2?", "Été?", "And now?"]
    answers = ["4", "Oui, l'été.", "Nothing\nmore."]
    found = []
    for turns in (1, 2, 3):
        for system in (None, "Be brief."):
            messages = [] if system is None else [{"role": "system", "content": system}]
            for question, answer in list(zip(questions, answers, strict=True))[:turns]:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            found.append({"messages": messages})
    return found


# TRL


def trl() -> Answer:
    return {"packing": list(_trl_packing()), "chats": _trl_chats(), "collated": _trl_collated()}


def _trl_packing() -> Iterator[Answer]:
    import datasets
    from trl import pack_dataset

    datasets.disable_progress_bars()
    for seed, count in ((0, 10), (1, 60), (2, 200), (3, 400)):
        lengths = lognormal(seed, count)
        # All tokens of a document are its number, so that a row tells which ones it has.
        rows = datasets.Dataset.from_dict({"input_ids": [[number] * n for number, n in enumerate(lengths)]})
        packed = pack_dataset(rows, CAPACITY, strategy="bfd", map_kwargs={"batch_size": count})
        bins = [list(dict.fromkeys(ids)) for ids in packed["input_ids"]]
        yield {"capacity": CAPACITY, "lengths": lengths, "bins": bins}


def _trl_chats() -> list[Answer]:
    """Token ids and labels of conversations of which the answers are trained."""
    rows = _trl_trainer(chats(), assistant_only_loss=True).train_dataset
    return [
        {"messages": chat["messages"], "ids": row["input_ids"], "labels": row["labels"]}
        for chat, row in zip(chats(), rows, strict=True)
    ]


def _trl_collated() -> Answer:
    """Documents side by side in one row."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    given = documents(seed=4, count=12)
    labels = [[i if m else IGNORE for i, m in zip(row["ids"], row["mask"], strict=True)] for row in given]
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    batch = collate([{"input_ids": row["ids"], "labels": own} for row, own in zip(given, labels, strict=True)])
    made = {
        name: batch[key][0].tolist()
        for name, key in (("ids", "input_ids"), ("labels", "labels"), ("positions", "position_ids"))
    }
    return {"documents": given, **made, "cu_seqlens": batch["cu_seq_lens_q"].tolist(), "longest": batch["max_length_q"]}


def _trl_trainer(rows: list[Answer], **settings: Any) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    from tests.training.tiny import tiny_model, tiny_tokenizer

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder,
            max_length=None,
            report_to="none",
            use_cpu=True,
            bf16=False,
            eos_token="<|im_end|>",
            **settings,
        )
        return SFTTrainer(
            model=tiny_model(),
            args=config,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tiny_tokenizer(),
        )


# torchtune


def torchtune() -> Answer:
    return {
        "alpaca": _torchtune_alpaca(),
        "padded": _torchtune_padded(),
        "packed": [_torchtune_packed(seed) for seed in (5, 6, 7)],
    }


def _torchtune_alpaca() -> list[Answer]:
    from torchtune.data import AlpacaToMessages

    rows = [
        {"instruction": "Add the numbers.", "input": "1, 2", "output": "3"},
        {"instruction": "Say hello.", "input": "", "output": "Hello!"},
        {"instruction": "Été?\nEncore.", "output": "Oui"},
    ]
    asked = AlpacaToMessages(train_on_input=False)
    return [
        {
            "row": row,
            "messages": [
                {"role": message.role, "text": message.text_content, "masked": message.masked}
                for message in asked(row)["messages"]
            ],
        }
        for row in rows
    ]


def _torchtune_padded() -> Answer:
    from torchtune.data import padded_collate_sft

    given = documents(seed=8, count=6)
    batch = padded_collate_sft([_as_torchtune(row) for row in given], padding_idx=0, ignore_idx=IGNORE)
    return {"documents": given, "ids": batch["tokens"].tolist(), "labels": batch["labels"].tolist()}


def _torchtune_packed(seed: int) -> Answer:
    from torchtune.datasets import PackedDataset

    given, capacity = documents(seed, count=40), 32
    packs = PackedDataset([_as_torchtune(row) for row in given], max_seq_len=capacity, padding_idx=0)
    rows = []
    for pack in packs.packs:
        tokens = int((pack["tokens"] != 0).sum())
        ids, labels = (pack[name][:tokens].tolist() for name in ("tokens", "labels"))
        rows.append({"ids": ids, "labels": labels, "positions": pack["input_pos"][:tokens].tolist()})
    return {"capacity": capacity, "documents": given, "rows": rows}


def _as_torchtune(row: Answer) -> Answer:
    from torchtune.data import CROSS_ENTROPY_IGNORE_IDX

    # As torchtune's own dataset class makes labels of a mask that says what is left out.
    left_out = np.array(row["mask"]) == 0
    return {"tokens": row["ids"], "labels": list(np.where(left_out, CROSS_ENTROPY_IGNORE_IDX, row["ids"]).tolist())}


# torchdata


class _Numbers(Dataset[int]):
    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        return index


class _EpochOrder(torch.utils.data.Sampler[int]):
    """A permutation for each epoch: numpy's, of the seed and the number of the epoch."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.epoch = count, seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        yield from np.random.RandomState([self.seed, self.epoch]).permutation(self.count).tolist()


def torchdata() -> Answer:
    """Batches of a loader that is stopped after each number of batches, saved, and restored into a fresh one."""
    return {
        "resumed": [
            _torchdata_resumed(count=23, size=4, seed=42, epochs=3, workers=0),
            _torchdata_resumed(count=8, size=4, seed=7, epochs=2, workers=2),
        ]
    }


def _torchdata_resumed(*, count: int, size: int, seed: int, epochs: int, workers: int) -> Answer:
    per_epoch = count // size
    whole = _batches(_loader(count, size, seed, workers), range(epochs))
    stops = []
    for stop in range(epochs * per_epoch + 1):
        epoch, within = divmod(stop, per_epoch)
        state = _state_after(_loader(count, size, seed, workers), epoch, within)
        fresh = _loader(count, size, seed, workers)
        if state is not None:
            fresh.load_state_dict(state)
        stops.append({"after": stop, "then": _batches(fresh, range(epoch, epochs))})
    return {"count": count, "size": size, "seed": seed, "epochs": epochs, "whole": whole, "stops": stops}


def _loader(count: int, size: int, seed: int, workers: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    sampler = _EpochOrder(count, seed)
    return StatefulDataLoader(_Numbers(), batch_size=size, sampler=sampler, drop_last=True, num_workers=workers)


def _state_after(loader: Any, epoch: int, within: int) -> Any:
    """The state after so many batches of an epoch; None at its start, where there is nothing to go on from."""
    if not within:
        return None
    loader.sampler.epoch = epoch
    batches = iter(loader)
    for _ in range(within):
        next(batches)
    return loader.state_dict()


def _batches(loader: Any, epochs: range) -> list[list[int]]:
    found = []
    for epoch in epochs:
        loader.sampler.epoch = epoch
        found += [batch.tolist() for batch in loader]
    return found


PEERS: dict[str, tuple[tuple[str, ...], Callable[[], Answer]]] = {
    "trl": (("trl", "datasets", "transformers", "torch"), trl),
    "torchtune": (("torchtune", "torch"), torchtune),
    "torchdata": (("torchdata", "torch"), torchdata),
}

if __name__ == "__main__":
    main(*sys.argv[1:])
