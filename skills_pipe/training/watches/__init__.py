"""What looks after a run while it goes on: the guard of its steps, and the end of a training that no longer learns."""
