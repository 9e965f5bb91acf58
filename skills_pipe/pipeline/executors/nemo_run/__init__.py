"""The jobs of a plan as tasks of nemo-run, whose executors reach Docker, SkyPilot, Lepton, DGX Cloud and Kubeflow."""
