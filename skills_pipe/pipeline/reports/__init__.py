"""What is known of a run at a moment, as values: the terminal shows them, ``--json`` prints them."""
