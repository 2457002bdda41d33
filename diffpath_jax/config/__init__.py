"""From a config file to checked dataclasses, and from those to objects."""
