"""Networks that see images as vectors."""
