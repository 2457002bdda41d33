"""One training loop for every task, and what it leaves behind."""
