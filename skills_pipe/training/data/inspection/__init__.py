"""What the programs that look at data share: their arguments, which rows they read, what becomes of each row."""
