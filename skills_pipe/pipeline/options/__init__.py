"""How commands declare their options, and what becomes of the values."""
