"""Public checkpoints of other projects in: a module for each project, and what they share in ``checkpoints``."""
