"""``python run_sample.py --workdir=... --out=...`` is ``diffpath sample``."""

import sys

from diffpath_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
