"""The first stage of latent diffusion: a trained autoencoder, its identity, and the scale of its latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffpath_jax.config import size_checks
from diffpath_jax.config.first_stage import FirstStage, read_autoencoder
from diffpath_jax.config.sections import AutoencodingRun, RunConfig
from diffpath_jax.config.tasks import make_lpips
from diffpath_jax.data.manifest import Dataset
from diffpath_jax.data.pipeline import read_arrays
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.progress import console
from diffpath_jax.networks.autoencoder import AutoencoderConfig
from diffpath_jax.networks.kinds import kinds_for, make_network
from diffpath_jax.runs import run as runs
from diffpath_jax.shapes import Tree
from diffpath_jax.training.checkpoint import tree_digest
from diffpath_jax.weights import safetensors_file

# Images that the scale of latents is measured on, spread evenly over the training images, and how many at once.
SCALE_IMAGES, SCALE_BATCH = 512, 32
_FIX = "name a run of task 'autoencoding', or a file of `diffpath convert --from vqgan` or `diffpath export`"


def open_first_stage(path: Path) -> FirstStage:
    """Read an autoencoder from a run directory or a safetensors file; its scale is 0 where nothing says it.

    Raises:
        DiffpathError: it is none, or its parameters do not fit its description.
    """
    if path.is_dir():
        run = runs.open_run(path)
        if not isinstance(run.config, AutoencodingRun):
            raise DiffpathError("first stage", where=path, why="not an autoencoder's run", fix=_FIX)
        params = runs.load_parameters(run).params
        return FirstStage(run.config.network, scale=0.0, digest=tree_digest(params), params=params)
    flat, about = safetensors_file.read_parameters(path)
    section = about.get("network")
    if not isinstance(section, Mapping) or section.get("kind") not in kinds_for("autoencoding"):
        raise DiffpathError("first stage", where=path, why="not an autoencoder", fix=_FIX)
    network = read_autoencoder(section, where=str(path))
    expected, _ = make_network(network, dtype=jnp.float32).shapes
    params = safetensors_file.arrange(flat, expected, where=str(path))
    return FirstStage(network, scale=float(about.get("scale") or 0.0), digest=tree_digest(params), params=params)


def open_for(path: Path, source: Dataset) -> FirstStage:
    """The autoencoder that is to be applied to a data set of images.

    Raises:
        DiffpathError: it is none, or the data are not images, or no multiple of its stride.
    """
    source.check_images()
    if not path.exists():
        raise DiffpathError("first stage", where=path, why="no such file or run", fix="check the path")
    stage = open_first_stage(path)
    size_checks.check_latent_size(stage, source.schema.image_px, where=str(source.directory))
    return stage


def prepare(config: RunConfig, datasets: Sequence[Dataset], *, workdir: Path, where: str) -> FirstStage | None:
    """The first stage of a run that begins or goes on; none for a model of pixels.

    A run that goes on uses the copy in its directory where the original is gone. The scale is, in this order: the one
    that the run began with; that of the config; that of the checkpoint the first stage was converted from, for which
    its denoiser was trained; that of the stored latents; measured.

    Raises:
        DiffpathError: no first stage, or the data are latents of another one (exit code 4).
    """
    stored = [dataset.details.latents for dataset in datasets]
    if config.codec is None:
        if any(stored):
            fix = "use a config with a section 'codec', or the data set that the latents were made from"
            raise DiffpathError("data set", where=datasets[0].directory, why="it holds latents, not images", fix=fix)
        return None
    named, copy = Path(config.codec.first_stage), workdir / runs.FIRST_STAGE
    if not config.codec.first_stage:
        fix = "name a run, or a converted file"
        raise DiffpathError("key 'codec.first_stage'", where=where, why="names no autoencoder", fix=fix)
    if not named.exists() and not copy.exists():
        raise DiffpathError("first stage", where=named, why="no such file or run", fix="check codec.first_stage")
    stage = open_first_stage(named if named.exists() else copy)
    for dataset, latents in zip(datasets, stored, strict=True):
        if latents and latents["digest"] != stage.digest:
            raise DiffpathError(
                "latents",
                where=dataset.directory,
                why=f"made by another first stage ({latents['digest'][:16]}, not {stage.digest[:16]})",
                fix="run `diffpath encode` with this first stage, or name theirs",
                code=ExitCode.REFUSED,
            )
    began = open_first_stage(copy).scale if copy.exists() else 0.0
    of_latents = next((latents["scale"] for latents in stored if latents), 0.0)
    known = began or config.codec.scale or stage.scale or of_latents
    return replace(stage, scale=known or measure_scale(stage, datasets[0]))


def perceptual(config: RunConfig) -> Tree | None:
    """Parameters of LPIPS where an autoencoder's config names them; else none, and a word on what is lost.

    Raises:
        DiffpathError: the file is missing, or holds something else.
    """
    if config.autoencoding is None:
        return None
    if not config.autoencoding.lpips:
        console.print(
            "warning: no autoencoding.lpips: L1 (and a discriminator) alone; fine texture and sharp nuclear borders "
            "come back blurred, and the published rFID cannot be expected",
            soft_wrap=True,
        )
        return None
    flat, _ = safetensors_file.read_parameters(Path(config.autoencoding.lpips))
    expected, _ = make_lpips(config.dtype).shapes
    return safetensors_file.arrange(flat, expected, where=config.autoencoding.lpips)


class RoundTrip(NamedTuple):
    """Images through an autoencoder and back.

    Attributes:
        images: what came back; from a normal distribution, that of its mean.
        codes: index of each latent's code; none where there is no codebook.
    """

    images: jax.Array
    codes: jax.Array | None


def round_trip(network: AutoencoderConfig, dtype: str) -> Callable[[Tree, jax.Array], RoundTrip]:
    """(parameters, images) -> what an autoencoder makes of them."""
    codec = FirstStage(network, scale=1.0, digest="").codec(dtype=dtype)

    def run(params: Tree, images: jax.Array) -> RoundTrip:
        z, _ = codec.posterior.moments(codec.code(params, images))
        codes = codec.network.apply(params, {}, z, method="quantise")[0][1] if network.codebook_size else None
        return RoundTrip(codec.decode(params, z), codes)

    return run


def measure_scale(found: FirstStage, dataset: Dataset) -> float:
    """1 / standard deviation of the latents of evenly spread training images (Rombach et al. 2022, appendix G)."""
    codec = replace(found, scale=1.0).codec(dtype="float32")
    encode = jax.jit(lambda params, batch, key: codec.encode(params, batch, key))
    images = read_arrays(dataset, "train", limit=SCALE_IMAGES)["image"]
    parts = [images[start : start + SCALE_BATCH] for start in range(0, len(images), SCALE_BATCH)]
    latents = [encode(found.params, {"image": part}, jax.random.key(i)) for i, part in enumerate(parts)]
    scale = 1.0 / float(np.concatenate([np.asarray(part).ravel() for part in latents]).std())
    console.print(f"scale of the latents: {scale:.4g}, measured on {len(images)} images", soft_wrap=True)
    return scale
