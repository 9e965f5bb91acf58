"""What is wrong with training data, and what it will cost: found before anything is trained."""
