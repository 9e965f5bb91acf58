"""Evaluation: benchmarks, generation, grading and metrics; runs inside a job."""
