"""What runs leave on disk, and what it says of their jobs."""
