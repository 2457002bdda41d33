"""Fields of view: how large, where, how many, and whether their images are good."""
