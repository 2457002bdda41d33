"""Parameters as files: ours, and those of other projects."""
