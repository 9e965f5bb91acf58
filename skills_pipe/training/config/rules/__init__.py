"""What a configuration must not say, found before anything starts."""
