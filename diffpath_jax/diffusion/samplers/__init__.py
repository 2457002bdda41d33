"""Samplers: one loop, the grids of steps it can take, and the methods that take a step."""
