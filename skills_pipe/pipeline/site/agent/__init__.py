"""What runs on the login node: the standard library only, and Python 3.6."""
