"""The launcher: options -> plan -> submission. Runs on a laptop or a login node, without torch."""
