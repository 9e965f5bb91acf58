"""Processes that tokenise."""
