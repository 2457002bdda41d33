"""Files, errors and progress: what every other folder stands on."""
