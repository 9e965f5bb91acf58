"""Jobs as the scripts that run them."""
