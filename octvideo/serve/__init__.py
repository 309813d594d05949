"""A trained network behind HTTP: requests decoded by processes, scored in common passes, within
limits."""
