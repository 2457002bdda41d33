"""Which folders a wheel holds; everything else about the package stands in pyproject.toml.

``configs/`` and ``demo/`` lie at the top of the repository, where readers look for them, and inside the package in a
wheel: ``diffpath_jax.io.packaged`` finds them in either place.
"""

from setuptools import find_packages, setup

INSIDE = {"diffpath_jax.configs": "configs", "diffpath_jax.demo": "demo"}

setup(packages=[*find_packages(include=["data_prep*", "diffpath_jax*"]), *INSIDE], package_dir=INSIDE)
