"""What people and services are told of a training while it runs."""
