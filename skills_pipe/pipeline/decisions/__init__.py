"""Which stages have to run: identities, fingerprints and what earlier runs promise."""
