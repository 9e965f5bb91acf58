"""Checks of a training before the queue, one subject in each file."""
