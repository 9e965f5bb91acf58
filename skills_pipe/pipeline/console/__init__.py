"""The terminal: `ns` as a Typer application over the registry of commands."""
