"""``python run_train.py --config=... --workdir=...`` is ``diffpath train``."""

import sys

from diffpath_jax.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
