"""Files of rows, whatever their kind: how many there are, and each of them by number."""
