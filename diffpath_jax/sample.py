"""A sampling job: any number of images, over all devices, resumable, written as a data set.

Image i has class ``i mod number of classes`` and draws all its noise from ``fold_in(key, i)``. Images are made in
batches of a fixed size a device, so their pixels do not depend on how many devices there are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from data_prep import card, shards
from diffpath_jax import build, samplers, sections, sharding
from diffpath_jax.data import manifest, records
from diffpath_jax.progress import track
from diffpath_jax.runs import Run, Trained
from diffpath_jax.shapes import Labels, PRNGKey, Tree

# (params, model_state, key, image indices, labels) -> (uint8 images, uint8 film)
Draw = Callable[[Tree, Tree, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
SPLIT = "train"


@dataclass(frozen=True)
class SampleJob:
    """What to draw.

    Attributes:
        out: dataset directory to write.
        name: dataset name.
        num_per_class: images of each class.
        sampler: step rule and its numbers.
        image_px: (height, width); other sizes than the training size change the field of view, not the um/px.
        batch_size: images a device draws at once.
        seed: of all noise.
    """

    out: Path
    name: str
    num_per_class: int
    sampler: sections.SamplerConfig
    image_px: tuple[int, int]
    batch_size: int
    seed: int


def make_draw(
    run: Run, sampler: sections.SamplerConfig, *, image_px: tuple[int, int], mesh: Mesh, film_frames: int = 0
) -> Draw:
    """A jitted function that draws a batch, split over the devices of ``mesh``."""
    assert run.config.diffusion is not None
    codec = build.codec(run.config)
    respaced = build.sampling_schedule(build.schedule(run.config.diffusion), sampler)
    rule = build.step_rule(run.config, sampler, respaced)

    def draw(
        params: Tree, model_state: Tree, key: PRNGKey, indices: Labels, labels: Labels
    ) -> tuple[jax.Array, jax.Array]:
        denoiser = build.denoiser(
            run.config,
            sampler,
            respaced,
            params=params,
            model_state=model_state,
            labels=labels,
            num_classes=len(run.classes),
        )
        keys = jax.vmap(lambda index: jax.random.fold_in(key, index))(indices)
        x, film = samplers.sample(
            denoiser,
            respaced,
            rule,
            keys=keys,
            shape=codec.shape(image_px),
            clip_x0=sampler.clip_x0,
            film_frames=film_frames,
        )
        return codec.decode(x), jax.lax.map(codec.decode, film)

    everywhere, split = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    return jax.jit(draw, in_shardings=(everywhere, everywhere, everywhere, split, split))


def class_of(indices: np.ndarray, num_classes: int) -> np.ndarray:
    """Label of each image index."""
    return (indices % num_classes).astype(np.int32)


def run_job(job: SampleJob, run: Run, trained: Trained, mesh: Mesh) -> manifest.Dataset:
    """Draw what is missing of a job over the devices of ``mesh`` and write the data set.

    A finished job is returned as it is.

    Raises:
        DiffpathError: the directory belongs to another job (exit code 4).
    """
    fingerprint = _fingerprint(job, run, trained)
    complete = shards.finished(job.out, fingerprint)
    if complete:
        return complete
    staging = shards.Staging(job.out, fingerprint)
    total = job.num_per_class * len(run.classes)
    starts = range(0, total, job.batch_size)
    done = {start: unit for start in starts if (unit := staging.find(_unit_name(start)))}
    draw = make_draw(run, job.sampler, image_px=job.image_px, mesh=mesh)
    params, model_state = sharding.replicate((trained.params, trained.model_state), mesh)
    missing = [start for start in starts if start not in done]
    finished = sum(unit.count for unit in done.values())
    with track("sample", total=total, done=finished, unit="img") as progress:
        for group in _groups(missing, mesh.size):
            wanted = np.concatenate([np.arange(start, start + job.batch_size) for start in group])
            # Every device gets a full batch: the last group repeats its units, and what is over is thrown away.
            padded = np.resize(wanted, job.batch_size * mesh.size)
            labels = class_of(padded, len(run.classes))
            images, _ = draw(params, model_state, jax.random.key(job.seed), jnp.asarray(padded), jnp.asarray(labels))
            for start, block in zip(group, np.split(np.asarray(images), mesh.size), strict=False):
                unit = staging.commit(_unit_name(start), _encode(job, run, trained, start, block, total), {})
                progress.advance(unit.count)
    units = [staging.find(_unit_name(start)) for start in starts]
    dataset = _assemble(job, run, trained, fingerprint, staging, [unit for unit in units if unit])
    staging.clear()
    return dataset


def _unit_name(start: int) -> str:
    return f"batch-{start:09d}"


def _groups(starts: Sequence[int], size: int) -> list[Sequence[int]]:
    return [starts[i : i + size] for i in range(0, len(starts), size)]


def _encode(job: SampleJob, run: Run, trained: Trained, start: int, images: np.ndarray, total: int) -> list[bytes]:
    indices = np.arange(start, min(start + job.batch_size, total))
    return [
        records.encode(
            records.PatchRecord(
                image=image,
                label=int(label),
                slide=f"generated:{trained.digest[:16]}",
                patient="",
                mpp=run.mpp,
                fov_um=job.image_px[1] * run.mpp,
                index=int(index),
            )
        )
        for index, label, image in zip(indices, class_of(indices, len(run.classes)), images, strict=False)
    ]


def _fingerprint(job: SampleJob, run: Run, trained: Trained) -> dict[str, Any]:
    """Everything that decides the pixels."""
    return {
        "parameters": trained.digest,
        "run": run.digest,
        "name": job.name,
        "num_per_class": job.num_per_class,
        "sampler": asdict(job.sampler),
        "image_px": list(job.image_px),
        "batch_size": job.batch_size,
        "seed": job.seed,
    }


def _assemble(
    job: SampleJob,
    run: Run,
    trained: Trained,
    fingerprint: Mapping[str, Any],
    staging: shards.Staging,
    units: Sequence[shards.Unit],
) -> manifest.Dataset:
    schema = records.Schema(job.image_px, run.classes)
    total = sum(unit.count for unit in units)
    labels = class_of(np.arange(total), len(run.classes)).tolist()
    sampling = {
        **asdict(job.sampler),
        "seed": job.seed,
        "batch_size": job.batch_size,
        "checkpoint_step": trained.step,
        "checkpoint_digest": trained.digest,
        "run_digest": run.digest,
    }
    details = {
        "kind": "generated",
        "mpp": run.mpp,
        "fov_um": job.image_px[1] * run.mpp,
        "job": dict(fingerprint),
        "command": "diffpath sample",
        "sampling": sampling,
        "training_data": list(run.data),
        "versions": shards.versions("jax", "flax"),
    }
    return shards.write_dataset(
        job.out,
        name=job.name,
        schema=schema,
        splits={SPLIT: labels},
        items={SPLIT: (data for unit in units for data in staging.read(unit))},
        details=details,
        card=card.dataset_card(job.name, schema, {SPLIT: labels}, details),
    )
