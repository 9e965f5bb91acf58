"""The training configuration: schema, defaults and overrides; without torch, so that the launcher checks it too."""
