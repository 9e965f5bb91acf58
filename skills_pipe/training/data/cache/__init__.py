"""Tokenised data sets on disk: made once, mapped into memory by every job and rank that trains on them."""
