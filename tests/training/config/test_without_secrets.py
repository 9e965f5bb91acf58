from skills_pipe.training.config.without_secrets import without_secrets


def test_values_of_variables_stay_at_home():
    tree = {"policy": {"dtensor_cfg": {"env_vars": {"MY_TOKEN": "s3cret"}, "enabled": True}}}
    assert without_secrets(tree) == {"policy": {"dtensor_cfg": {"env_vars": ["MY_TOKEN"], "enabled": True}}}


def test_nobody_gets_what_opens_a_server():
    """Addresses with a password in them are how MLflow is often told where to log."""
    tree = {"logger": {"mlflow": {"tracking_uri": "https://me:p@ss@mlflow.org:80/a@b"}}, "data": {"train": [{}, "a@b"]}}
    assert without_secrets(tree) == {
        "logger": {"mlflow": {"tracking_uri": "https://***@mlflow.org:80/a@b"}},
        "data": {"train": [{}, "a@b"]},
    }
    nested = {"data": {"train": [{"env_vars": {"KEY": "value"}, "data_path": "s3://key:secret@bucket"}]}}
    assert without_secrets(nested) == {"data": {"train": [{"env_vars": ["KEY"], "data_path": "s3://***@bucket"}]}}
