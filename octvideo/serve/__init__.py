"""A trained network behind HTTP: processes decode requests, batches hold views of several, and
every resource is limited."""
