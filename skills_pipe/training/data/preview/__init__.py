"""Documents made visible before anything is trained: in the terminal, and as a page for a browser."""

from skills_pipe.training.data.preview.text import preview

__all__ = ["preview"]
