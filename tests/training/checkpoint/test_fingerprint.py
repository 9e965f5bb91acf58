import shutil

from skills_pipe.training.checkpoint.fingerprint import model_fingerprint
from tests.training.tiny import save_tiny_model, tiny_config


def test_a_copied_model_is_the_same_model(tmp_path):
    one = save_tiny_model(tmp_path / "one")
    two = shutil.copytree(one, tmp_path / "two")
    assert model_fingerprint(tiny_config(), str(one)) == model_fingerprint(tiny_config(), str(two))


def test_other_weights_of_one_architecture_are_another_model(tmp_path):
    one, two = (save_tiny_model(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    assert model_fingerprint(tiny_config(), str(one)) != model_fingerprint(tiny_config(), str(two))


def test_another_architecture_is_another_model():
    name = "org/model"
    assert model_fingerprint(tiny_config(), name) == model_fingerprint(tiny_config(), name)
    assert model_fingerprint(tiny_config(), name) != model_fingerprint(tiny_config(num_hidden_layers=3), name)
    assert model_fingerprint(tiny_config(), name) != model_fingerprint(tiny_config(), "org/other")


def test_settings_of_a_training_leave_the_model_the_same():
    used = tiny_config()
    used.use_cache = False
    used._attn_implementation = "eager"
    assert model_fingerprint(used, "org/model") == model_fingerprint(tiny_config(), "org/model")
