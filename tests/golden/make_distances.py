"""Makes distances.npz: Frechet and kernel distances by torch-fidelity and clean-fid on the same features.

In a Python of its own: ``pip install torch-fidelity clean-fid``, then in ``tests/``:
``python -m golden.make_distances``.

The kernel distance is that of given subsets, which are stored.
"""

from pathlib import Path

import numpy as np
import torch
from cleanfid.fid import frechet_distance
from golden import weights
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_mmd

CASES = {"many": ((700, 64), (500, 64)), "few": ((60, 96), (75, 96))}
SUBSETS, SIZE = 5, 50


def main() -> None:
    arrays = {}
    for case, sizes in CASES.items():
        x, y = (weights.features(f"distances {case} {side}", *size) for side, size in zip("xy", sizes, strict=True))
        arrays |= {f"{case}/{side}": np.array(size) for side, size in zip("xy", sizes, strict=True)}
        statistics = [fid_features_to_statistics(torch.from_numpy(f).double()) for f in (x, y)]
        found = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
        arrays[f"{case}/torch_fidelity fid"] = np.float64(found)
        moments = [(f.astype(np.float64).mean(axis=0), np.cov(f.astype(np.float64), rowvar=False)) for f in (x, y)]
        arrays[f"{case}/cleanfid fid"] = np.float64(frechet_distance(*moments[0], *moments[1]))
        rng = np.random.RandomState(2020)
        rows, columns = ([rng.choice(len(f), SIZE, replace=False) for _ in range(SUBSETS)] for f in (x, y))
        arrays[f"{case}/x subsets"], arrays[f"{case}/y subsets"] = (np.array(s, np.int16) for s in (rows, columns))
        doubles = (x.astype(np.float64), y.astype(np.float64))
        options = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None}
        arrays[f"{case}/torch_fidelity kid"] = np.array(
            [
                kernel_mmd(doubles[0][i], doubles[1][j], kid_kernel_poly_coef0=1, **options)
                for i, j in zip(rows, columns, strict=True)
            ]
        )
    path = Path(__file__).parent / "distances.npz"
    np.savez_compressed(path, **arrays)
    print(path.name, path.stat().st_size, {k: v for k, v in arrays.items() if "fid" in k and "kid" not in k})


if __name__ == "__main__":
    main()
