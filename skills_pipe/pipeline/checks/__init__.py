"""What can be found out before a job waits in a queue."""
