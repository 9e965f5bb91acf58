"""Where jobs run: cluster configurations, paths through mounts, variables and time limits."""
