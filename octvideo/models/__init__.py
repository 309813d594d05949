"""Network families and `create_model`."""
