"""Reading, converting and inflating weights."""
