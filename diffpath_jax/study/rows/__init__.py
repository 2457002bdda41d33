"""The rows of a study, a module for each kind of question."""
