"""The data sets that can be trained on: formats of rows, names, files here and on the hub."""

from skills_pipe.training.data.sources.source import DataSource, RowFormat, first_form, first_row, read_rows

__all__ = ["DataSource", "RowFormat", "first_form", "first_row", "read_rows"]
