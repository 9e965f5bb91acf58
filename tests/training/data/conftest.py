"""Settings of the property tests of the data."""

from hypothesis import settings

# Examples take as long as a busy machine lets them: time says nothing about correctness.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
