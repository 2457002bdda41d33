"""Pictures to check a data set by."""
