"""What distances between two sets of 2048 features cost, beside the plain way, in float64 or single precision.

    python -m benchmarks.distances --out benchmarks/results/NAME.json [--tiny]

In turns in one process, seconds are wall-clock:

- Frechet distance of two full covariances of 2048 features: ours; and the trace of scipy's matrix square root of their
  product, as the public tools compute it. ``relative error`` is that of ours on covariances whose distance is known.
- Kernel distance, 100 subsets of 1000: ours in single precision with float64 sums, as features come; and the same in
  float64. ``difference`` is the largest of a subset's values.
- All intervals of the Frechet distance that an evaluation of 10,000 images in 5 classes has, of the set and its floor,
  from derivatives. ``replicate s`` is what one replicate of the bootstrap costs, of which there would be 1,200.
- Peak memory of fitting a Gaussian to features on disk, for two numbers of images.

The goals: Frechet 2 s at a relative error of 1e-8, kernel 6 s, all intervals 120 s, memory that does not grow with the
images.
"""

import argparse
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg

from benchmarks import measure
from benchmarks.measure import Row
from diffpath_jax.io.files import write_json
from diffpath_jax.metrics import fid, influence, kid
from diffpath_jax.metrics.bootstrap import MAX_GROUPS, Groups
from diffpath_jax.metrics.metric import Comparison

CLASSES = 5


def covariances(dimension: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Two covariances with common axes and a spread of six orders of magnitude, and their distance."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(dimension, dimension)))[0]
    a, b = np.geomspace(1e-4, 1e2, dimension), rng.permutation(np.geomspace(1e-4, 1e2, dimension))
    return (axes * a) @ axes.T, (axes * b) @ axes.T, float(np.square(np.sqrt(a) - np.sqrt(b)).sum())


def square_root_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The trace of a matrix square root."""
    root = scipy.linalg.sqrtm(a @ b)
    return float(np.trace(a) + np.trace(b) - 2 * np.trace(root).real)


def frechet_rows(dimension: int, rounds: int) -> list[Row]:
    """Ours beside scipy's."""
    a, b, expected = covariances(dimension)
    zero, found = np.zeros(dimension), {}

    def ours() -> None:
        found["ours"] = fid.frechet_distance(fid.from_covariance(zero, a), fid.from_covariance(zero, b))

    def theirs() -> None:
        found["scipy"] = square_root_distance(a, b)

    taken = measure.in_turns({"ours": ours, "scipy": theirs}, rounds=rounds, warmup=0)
    return [
        _seconds(f"Frechet, d {dimension}, {name}", taken[name])
        | {"relative error": abs(found[name] / expected - 1), "ours / this": measure.median_ratio(taken["ours"], own)}
        for name, own in taken.items()
    ]


def kernel_rows(dimension: int, subsets: int, size: int, rounds: int) -> list[Row]:
    """Single precision beside double, on features as a network gives them: none negative."""
    rng = np.random.default_rng(1)
    pairs = [rng.exponential(0.4, (2, size, dimension)).astype(np.float32) for _ in range(min(subsets, 4))]
    doubles = [pair.astype(np.float64) for pair in pairs]

    def all_of(given: list[np.ndarray]) -> None:
        for number in range(subsets):
            kid.squared_mmd(*given[number % len(given)])

    calls = {"float32": lambda: all_of(pairs), "float64": lambda: all_of(doubles)}
    taken = measure.in_turns(calls, rounds=rounds, warmup=0)
    worst = max(abs(kid.squared_mmd(*x) - kid.squared_mmd(*y)) for x, y in zip(pairs, doubles, strict=True))
    name = f"kernel, {subsets} x {size}, d {dimension}"
    return [
        _seconds(f"{name}, {kind}", taken[kind])
        | {"difference": worst, "ours / this": measure.median_ratio(taken["float32"], own)}
        for kind, own in taken.items()
    ]


def interval_rows(dimension: int, images: int) -> list[Row]:
    """Twice (set and floor) the overall distance and that of each class, on features whose spectrum falls."""
    rng = np.random.default_rng(2)
    axes = rng.standard_normal((dimension, dimension), np.float32) * np.geomspace(1, 1e-3, dimension, dtype=np.float32)
    x, y = (rng.standard_normal((images, dimension), np.float32) @ axes.T for _ in range(2))
    classes = [slice(start, None, CLASSES) for start in range(CLASSES)]
    comparisons = [_compared(x[chosen], y[chosen]) for chosen in 2 * [slice(None), *classes]]

    def intervals() -> None:
        for comparison in comparisons:
            derivatives = fid.frechet_influence(comparison)
            influence.estimate(derivatives, comparison.x_groups, comparison.y_groups, lower=0.0)

    statistic, ones = fid.frechet_statistic(comparisons[1]), np.ones(MAX_GROUPS, int)

    def replicate() -> None:
        statistic(ones, ones)

    taken = measure.in_turns({"intervals": intervals, "replicate": replicate}, rounds=1, warmup=0)
    name = f"Frechet intervals, {images} images in {CLASSES} classes, d {dimension}"
    return [_seconds(name, taken["intervals"]) | {"replicate s": measure.times_of(taken["replicate"]).median}]


def _compared(x: np.ndarray, y: np.ndarray) -> Comparison:
    groups = (Groups(np.arange(len(part)) % MAX_GROUPS, MAX_GROUPS, "images") for part in (x, y))
    return Comparison(x, y, *groups, seed=0)


def memory_rows(dimension: int, count: int) -> list[Row]:
    """Peak of what numpy holds while a Gaussian is fitted to a memory map."""
    rows: list[Row] = []
    for images in (count, 4 * count):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.npy"
            features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(images, dimension))
            for start in range(0, images, 1000):
                block = features[start : start + 1000]
                block[:] = np.random.default_rng(start).standard_normal(block.shape, np.float32)
            tracemalloc.start()
            fid.fit_gaussian(np.load(path, mmap_mode="r"))
            rows.append(
                {"what": f"Gaussian of {images} images", "peak MiB": tracemalloc.get_traced_memory()[1] / 2**20}
            )
            tracemalloc.stop()
    return rows


def _seconds(what: str, seconds: list[float]) -> Row:
    own = measure.times_of(seconds)
    return {"what": what, "median s": own.median, "fastest s": own.fastest, "slowest s": own.slowest, "n": own.count}


def main(argv: list[str] | None = None) -> int:
    """Measure, write JSON, print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--tiny", action="store_true", help="only to see that it works")
    options = parser.parse_args(argv)
    dimension, subsets, size, images, rounds = (64, 3, 50, 500, 1) if options.tiny else (2048, 100, 1000, 10_000, 3)
    content: dict[str, Any] = {"what": " ".join((__doc__ or "").split()), "machine": measure.machine()}
    content["frechet"] = frechet_rows(dimension, rounds)
    content["kernel"] = kernel_rows(dimension, subsets, size, rounds)
    content["intervals"] = interval_rows(dimension, images)
    content["memory"] = memory_rows(dimension, images)
    content["load_average"] = measure.machine()["load_average"]
    if options.out:
        write_json(options.out, content)
    print(*(measure.table(content[table]) for table in ("frechet", "kernel", "intervals", "memory")), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
