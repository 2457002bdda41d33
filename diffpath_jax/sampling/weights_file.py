"""A diffusion model out of a safetensors file alone: its header says what else a run directory would.

A file of ``diffpath export`` says everything; one of ``diffpath convert`` says network, noise and prediction, and the
user says what a published file does not: the side of its images, their um/px, and the names of the classes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffpath_jax.config import checks
from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.config.sections import DiffusionRun
from diffpath_jax.data.columns import Column
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.files import sha256_json
from diffpath_jax.io.names import check_names
from diffpath_jax.io.sealed import opened
from diffpath_jax.networks.config import NetworkConfig
from diffpath_jax.networks.kinds import kinds_for
from diffpath_jax.networks.unet_ldm import KIND as OF_LATENTS
from diffpath_jax.runs.origin import origin_of
from diffpath_jax.runs.run import DiffusionModelRun, Weights
from diffpath_jax.training.checkpoint import tree_digest
from diffpath_jax.weights import safetensors_file

# The one class of a network that is not told any.
NO_CLASS = "image"
# Sections of a config that say how a model was trained, where the file does not say it: nothing here reads them.
_UNTOLD: dict[str, Any] = {
    "seed": 0,
    "dtype": "float32",
    "data": {"train": "", "batch_size": 1, "augment": "none", "workers": 0},
    "optim": {},
    "train": {"num_steps": 1, "log_every": 1, "checkpoint_every": 1},
}


@dataclass(frozen=True)
class Untold:
    """What a user says of a file that does not say it.

    Attributes:
        classes: a number of classes, or their names, separated by commas; empty for as many as the network has rows.
        patch_px: side of the images.
        mpp: um per pixel of the images that the network was trained on.
        first_stage: autoencoder of its latents, with its parameters.
    """

    classes: str = ""
    patch_px: int | None = None
    mpp: float | None = None
    first_stage: FirstStage | None = None


@dataclass(frozen=True, kw_only=True)
class _FileConfig(DiffusionRun):
    """The config of a file, whose network has the rows of class embedding that are stored.

    Published ones may have no null class.

    Attributes:
        rows: of the class embedding.
    """

    rows: int

    def network_for(self, num_classes: int) -> NetworkConfig:
        """The network's config, as stored."""
        return self.network.for_classes(self.rows)


def run_of_file(path: Path, untold: Untold) -> DiffusionModelRun:
    """Returns the diffusion model that a file of parameters describes.

    Raises:
        DiffpathError: the file is missing, damaged or holds another network, or something is said neither by it nor by
            the user.
    """
    about = safetensors_file.read_about(path)
    section = about.get("network")
    if not isinstance(section, Mapping) or section.get("kind") not in kinds_for("diffusion"):
        raise _unfit(path, "not a diffusion model", "name a file of `diffpath convert` (adm, ldm) or `diffpath export`")
    rows = section.get("num_classes", 0)
    classes = _classes(path, untold, about, rows)
    config = _config(path, untold, about, rows=rows, has_null=len(classes) < rows)
    latents = _latents(path, untold, about, config)
    digest = sha256_json({"header": about, "latents": latents.as_json() if latents else {}, "classes": classes})
    return DiffusionModelRun(
        workdir=path,
        config=config,
        classes=classes,
        image_px=_image_px(path, untold, about),
        mpp=_mpp(path, untold, about),
        data=(),
        images=tuple(about.get("images") or ()),
        features=about.get("features"),
        columns=_columns(path, about),
        digest=about.get("run_digest") or digest,
        compatibility_digest=digest,
        latents=latents,
    )


def weights_of_file(run: DiffusionModelRun) -> Weights:
    """Returns the parameters of a model that :func:`run_of_file` has opened.

    Raises:
        DiffpathError: they are damaged, or do not fit their description.
    """
    flat, about = safetensors_file.read_parameters(run.workdir)
    expected, expected_state = run.network.shapes
    params, state = safetensors_file.split_network(flat)
    where = str(run.workdir)
    params, state = (
        jax.tree.map(jnp.asarray, safetensors_file.arrange(part, like, where=where))
        for part, like in ((params, expected), (state, expected_state))
    )
    digest = tree_digest({"params": params, "model_state": state})
    codec_params = run.latents.params if run.latents else {}
    averaged = bool(about.get("is_ema", True))
    return Weights(params, state, int(about.get("step", 0)), digest, is_ema=averaged, codec_params=codec_params)


def _config(path: Path, untold: Untold, about: Mapping[str, Any], *, rows: int, has_null: bool) -> _FileConfig:
    """Returns the config that a header describes; what it does not tell stands as nothing reads it."""
    own, origin, network = about.get("config"), origin_of(about), about["network"]
    told = {
        "task": "diffusion",
        "noise": origin.get("noise"),
        "diffusion": {
            "prediction": origin.get("prediction"),
            "loss": "hybrid" if network.get("learn_sigma") else "simple",
            "label_dropout": 0.1 if has_null else 0.0,
        },
    }
    content = dict(own) if isinstance(own, Mapping) else {**_UNTOLD, **told}
    if untold.first_stage or content.get("codec") or network["kind"] == OF_LATENTS.name:
        content["codec"] = {"first_stage": ""}
    content["network"] = {key: value for key, value in network.items() if key != "num_classes"}
    config = checks.run_config(content, where=str(path))
    return _FileConfig(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)}, rows=rows)


def _latents(path: Path, untold: Untold, about: Mapping[str, Any], config: DiffusionRun) -> FirstStage | None:
    """Returns the autoencoder whose latents the model works in, with its parameters; none for pixels.

    The scale is the model's own, else its autoencoder's, else 1, as published with VQ-f4.
    """
    stage, stated = untold.first_stage, about.get("latents") or {}
    if stage is None:
        if config.codec:
            raise _unfit(path, "its model works in latents", "name their autoencoder with --first_stage")
        if config.network.image_channels != 3:
            why = f"its images have {config.network.image_channels} channels, not the three of colours"
            raise _unfit(path, why, "name another file, or the autoencoder of its latents with --first_stage")
        return None
    if stated and stated["digest"] != stage.digest:
        why = f"its latents are those of {stated['digest'][:16]}, not of {stage.digest[:16]}"
        raise _unfit(path, why, "name the first stage that it was trained with")
    return dataclasses.replace(stage, scale=float(stated.get("scale") or stage.scale or 1.0))


def _classes(path: Path, untold: Untold, about: Mapping[str, Any], rows: int) -> tuple[str, ...]:
    """Returns the classes: as named, or by number."""
    if not rows:
        return (NO_CLASS,)
    stated = tuple(str(name) for name in about.get("classes") or ())
    if untold.classes.isdecimal():
        stated = tuple(map(str, range(int(untold.classes))))
    elif untold.classes:
        stated = tuple(untold.classes.split(","))
    classes = stated or tuple(map(str, range(rows)))
    try:
        check_names(*classes)
    except ValueError as error:
        raise _unfit(path, str(error), "name other classes with --classes") from error
    if len(set(classes)) != len(classes) or len(classes) not in (rows, rows - 1):
        why = f"{len(set(classes))} classes, but the network knows {rows}, or {rows - 1} and a null class"
        raise _unfit(path, why, "give as many with --classes")
    return classes


def _columns(path: Path, about: Mapping[str, Any]) -> tuple[Column, ...]:
    try:
        return tuple(opened(column, Column) for column in about.get("columns") or ())
    except ValueError as error:
        raise _unfit(path, f"its columns are none: {error}", "export it again") from error


def _image_px(path: Path, untold: Untold, about: Mapping[str, Any]) -> tuple[int, int]:
    stated = about.get("image_px")
    if untold.patch_px is not None:
        return untold.patch_px, untold.patch_px
    if not stated:
        raise _unfit(path, "it does not say how large its images are", "give their side with --patch_px")
    height, width = stated
    return height, width


def _mpp(path: Path, untold: Untold, about: Mapping[str, Any]) -> float:
    mpp = untold.mpp or about.get("mpp")
    if not mpp:
        why = "it does not say at how many um/px its images were"
        raise _unfit(path, why, "state it with --mpp (1 for images that have none)")
    return float(mpp)


def _unfit(path: Path, why: str, fix: str) -> DiffpathError:
    return DiffpathError("weights", where=path, why=why, fix=fix)
