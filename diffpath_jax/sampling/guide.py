"""The models that guide a diffusion model, a noisy classifier or a weaker denoiser: they have to belong to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from diffpath_jax.config import size_checks
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
    _refuse_others("classifier", other, run)
    return other, runs.load_parameters(other)


def open_guide(
    workdir: Path,
    run: runs.DiffusionModelRun,
    *,
    step: int | Literal["latest", "best"],
    image_px: tuple[int, int],
    needs_null: bool,
) -> tuple[runs.DiffusionModelRun, runs.Weights]:
    """Open the weaker model whose errors a run is to be guided away from: an earlier checkpoint, or a smaller network.

    Args:
        workdir: run directory of the weaker model; it may be that of the run itself.
        run: the diffusion model.
        step: which checkpoint of the weaker model.
        image_px: (height, width) of the images to draw.
        needs_null: it is asked without a class too, as classifier-free guidance does.

    Raises:
        DiffpathError: no diffusion model, or one of other classes, conditions, um/px, sizes, noise, prediction or
            latents; or it trained no null class where one is needed.
    """
    other = runs.diffusion_model(runs.open_run(workdir), fix="name a diffusion model with --guide")
    differences = (
        ("conditions", other.config.network.conditions, run.config.network.conditions),
        ("image size", other.image_px, run.image_px),
        ("prediction", other.config.diffusion.prediction, run.config.diffusion.prediction),
    )
    _refuse_others("guide", other, run, differences)
    if needs_null and not other.config.diffusion.label_dropout:
        why, fix = "it trained no null class, which class guidance asks for", "leave class guidance out"
        raise DiffpathError("guide", where=workdir, why=why, fix=fix)
    fix = "choose a multiple of it with --patch_px"
    size_checks.check_image_size(other.config, image_px, first_stage=other.latents, where=str(workdir), fix=fix)
    return other, runs.load_parameters(other, step=step)


def _refuse_others(
    what: str, other: runs.Run, run: runs.Run, differences: Sequence[tuple[str, object, object]] = ()
) -> None:
    """Refuse a model that does not speak of the same noisy images.

    Raises:
        DiffpathError: naming the first difference.
    """
    for subject, theirs, ours in (
        ("classes", other.classes, run.classes),
        ("um/px", other.mpp, run.mpp),
        ("noise", other.config.noise, run.config.noise),
        ("space", _named(other.latents), _named(run.latents)),
        *differences,
    ):
        if theirs != ours:
            why = f"its {subject} {theirs} is not the {ours} of {run.workdir}"
            raise DiffpathError(what, where=other.workdir, why=why, fix="train one on the same data and noise")


def _named(latents: FirstStage | None) -> str:
    """Returns the space that a model works in, in a word or two."""
    return f"latents of {latents.digest[:16]}, scale {latents.scale:g}" if latents else "pixels"
