"""What turns gradients into weights: optimizers, their schedules, and averages of the weights."""
