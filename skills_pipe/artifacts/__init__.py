"""The files by which the launcher and its jobs talk: a leaf package without torch."""
