"""The code that jobs run: what is packed, how it is named, and how it comes to the cluster."""
