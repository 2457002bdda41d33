"""The noisy classifier that guides a diffusion model: it has to belong to it."""

from pathlib import Path

from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs import run as runs


def open_classifier(workdir: Path, run: runs.Run) -> tuple[runs.Run, runs.Weights]:
    """Open the classifier that is to guide a run.

    Args:
        workdir: run directory of the classifier.
        run: the diffusion model.

    Raises:
        DiffpathError: it is no noisy classifier, or was trained on other classes, another um/px, other noise or other
            latents.
    """
    other = runs.open_run(workdir)
    if other.config.task != "noisy_classification":
        fix = "name a run with task 'noisy_classification', such as configs/noisy_classifier_pkgh224.py"
        raise DiffpathError("classifier", where=workdir, why="not a classifier of noisy images", fix=fix)
    for subject, theirs, ours in (
        ("classes", other.classes, run.classes),
        ("um/px", other.mpp, run.mpp),
        ("noise", other.config.noise, run.config.noise),
        ("space", _named(other.latents), _named(run.latents)),
    ):
        if theirs != ours:
            why = f"its {subject} {theirs} is not the {ours} of {run.workdir}"
            raise DiffpathError("classifier", where=workdir, why=why, fix="train one on the same data and noise")
    return other, runs.load_parameters(other)


def _named(latents: FirstStage | None) -> str:
    """Returns the space that a model works in, in a word or two."""
    return f"latents of {latents.digest[:16]}, scale {latents.scale:g}" if latents else "pixels"
