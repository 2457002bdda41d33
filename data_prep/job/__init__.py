"""The resumable job over many sources."""
