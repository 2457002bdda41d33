"""Pack patches of a data set into one file that ``benchmarks.accelerator --patches`` can read without the pipeline.

python -m benchmarks.make_patches --dataset DATASET --out patches.npz [--split train] [--limit 5000]

The file holds ``image`` (N, height, width, 3) uint8, ``label`` (N,) int32 and ``classes`` (names).
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.io.files import replace_file


def main(argv: list[str] | None = None) -> int:
    """Read, write, say how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", default="train")
    parser.add_argument("--limit", type=int, help="at most so many, evenly spread over the split")
    options = parser.parse_args(argv)
    dataset = open_dataset(options.dataset)
    arrays = read_arrays(dataset, options.split, limit=options.limit)
    with replace_file(options.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, classes=np.array(dataset.schema.classes), **arrays)
    print(f"{len(arrays['image'])} patches, {options.out.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
