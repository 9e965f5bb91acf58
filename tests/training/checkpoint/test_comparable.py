"""Losses on other held-out data say nothing about which checkpoint is the better one."""

from skills_pipe.artifacts.manifest import Manifest
from skills_pipe.training.checkpoint.comparable import comparable_metrics

VAL, TRAIN = "val:val_loss", "train:loss"


def saved(validation: str | None, **metrics: float) -> Manifest:
    facts = {"metrics": {name.replace("_", ":", 1): value for name, value in metrics.items()}}
    return Manifest(kind="checkpoint", files={}, facts=facts | ({"validation": validation} if validation else {}))


def test_those_of_the_last_steps_data_count():
    manifests = {2: saved("a", val_val_loss=1.0, train_loss=2.0), 4: saved("b", val_val_loss=3.0), 6: saved("b")}
    assert comparable_metrics(manifests) == {2: {TRAIN: 2.0}, 4: {VAL: 3.0}, 6: {}}


def test_while_there_is_none_on_them_the_ones_before_do():
    manifests = {2: saved("a", val_val_loss=1.0), 4: saved("a", val_val_loss=2.0), 6: saved("b", train_loss=1.0)}
    assert comparable_metrics(manifests) == {2: {VAL: 1.0}, 4: {VAL: 2.0}, 6: {TRAIN: 1.0}}


def test_what_is_not_known_is_the_same():
    """As of checkpoints that an earlier version has saved, and of a run that does not validate any more."""
    for one, other in ((None, "a"), ("a", None), ("a", "a")):
        manifests = {2: saved(one, val_val_loss=1.0), 4: saved(other, val_val_loss=2.0)}
        assert comparable_metrics(manifests) == {2: {VAL: 1.0}, 4: {VAL: 2.0}}
    assert comparable_metrics({}) == {}
