"""Studies with human readers: what they are shown, what they answer, and what that says."""
