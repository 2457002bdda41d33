"""Makes prdc.npz from the package of Naeem et al.

In a Python of its own: ``pip install prdc``, then in ``tests/``: ``python -m golden.make_prdc``.
"""

from pathlib import Path

import numpy as np
from prdc import compute_prdc

K = (1, 3, 5)


def main() -> None:
    """Two overlapping clouds of other sizes, some points of one repeated in the other."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(70, 6)).astype(np.float32)
    generated = (0.8 * rng.normal(size=(50, 6)) + 0.3).astype(np.float32)
    generated[:5] = real[:5]
    scores = [compute_prdc(real, generated, nearest_k=k) for k in K]
    names = ("precision", "recall", "density", "coverage")
    values = np.array([[float(score[name]) for name in names] for score in scores])
    np.savez_compressed(Path(__file__).parent / "prdc.npz", real=real, generated=generated, k=K, scores=values)


if __name__ == "__main__":
    main()
