"""The commands of the console script: options, wiring, messages. Nothing imports these but ``cli``."""
