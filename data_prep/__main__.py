"""``python -m data_prep`` is ``diffpath prep``."""

import sys

from diffpath_jax.cli import main

sys.exit(main(["prep", *sys.argv[1:]]))
