"""An average of a run's parameters whose length is chosen after training, out of its checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.shapes import Tree
from diffpath_jax.training.checkpoint import Checkpoints
from diffpath_jax.training.posthoc_ema import TRACES, Profile, combine

# Share of a profile's norm by which the one that checkpoints make may differ from it.
LARGEST_ERROR = 0.05


def reconstruct(checkpoints: Checkpoints, lengths: Sequence[float], wanted: Profile, *, where: Path) -> Tree:
    """Returns the average of the wanted profile, out of the traces in the intact checkpoints up to its step.

    Args:
        checkpoints: of the run.
        lengths: of the traces that it keeps.
        wanted: profile to make; its step is that of a checkpoint.
        where: the run.

    Raises:
        DiffpathError: the run keeps no traces, or too few of its checkpoints are left.
    """
    name = f"average of length {wanted.length:g}"
    if not lengths:
        fix = "train with optim.ema_lengths=(0.05,0.1), or use the average that it keeps"
        raise DiffpathError(name, where=where, why="the run keeps none to make others of", fix=fix)
    steps = [step for step in checkpoints.intact() if step <= wanted.step]
    made = combine([Profile(step, length) for step in steps for length in lengths], wanted)
    if made.error > LARGEST_ERROR:
        why = f"the {len(steps)} checkpoints up to step {wanted.step} make it only to within {made.error:.0%}"
        fix = f"choose one nearer to {' or '.join(f'{length:g}' for length in lengths)}, or lower train.keep_every"
        raise DiffpathError(name, where=where, why=why, fix=fix)
    average: Tree | None = None
    for step, coefficients in zip(steps, made.coefficients.reshape(len(steps), -1), strict=True):
        traces = checkpoints.read(step)["opt_state"][TRACES]
        for length, coefficient in zip(lengths, coefficients, strict=True):
            part = jax.tree.map(lambda trace, c=coefficient: c * np.float64(trace), traces[str(length)])
            average = part if average is None else jax.tree.map(np.add, average, part)
    return jax.tree.map(np.float32, average)
