"""How programs run on the login node of a cluster: here, or through ssh."""
