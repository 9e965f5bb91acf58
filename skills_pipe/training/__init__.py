"""The engine: runs inside a job and knows nothing of how jobs are submitted."""
