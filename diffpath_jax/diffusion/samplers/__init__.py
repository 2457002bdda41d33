"""Samplers: the one loop, the spacings of steps it can take, and the samplers that take a step."""
