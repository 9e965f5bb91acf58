"""The files of a cluster as the launcher sees them: in place, or through ssh with copies of the records here."""
