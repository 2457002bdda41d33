"""A sampling job: any number of images, over all devices and processes, resumable, written as a data set.

Images are drawn from a list of conditions: image i from number ``i mod their number``, with all its noise from
``fold_in(key, i)``. They are made in batches of a fixed size a device, each by the same program whatever the number of
devices, so neither that number nor an interruption changes a pixel.
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jax.sharding import Mesh
from jaxtyping import Int

from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import sections
from diffpath_jax.data import card, manifest, marking, records, writer
from diffpath_jax.data import job as jobs
from diffpath_jax.data.details import LIKE_ORIGIN, START_ORIGIN, Details
from diffpath_jax.data.staging import STAGING, Staging, Unit, recorded_job
from diffpath_jax.devices import processes, sharding
from diffpath_jax.diffusion.samplers import spacing
from diffpath_jax.diffusion.samplers.loop import Sampler
from diffpath_jax.io.files import replace_file
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.runs.run import Run
from diffpath_jax.sampling import growth
from diffpath_jax.sampling.draw import Draw, Model, Recipe, make_draw
from diffpath_jax.sampling.field import FieldOptions
from diffpath_jax.sampling.likes import Likes
from diffpath_jax.sampling.starts import Starts
from diffpath_jax.sampling.stepwise import make_stepwise_draw
from diffpath_jax.sampling.told import Told, conditions_of, drawn_mpp, named

SPLIT = "train"
TABLE = "samples.parquet"
# Names that earlier versions gave to fields of a job and of its sampler: in records on disk, and on the command line.
RENAMED = {"limit": "thresholding", "twins": "shared_noise"}


@dataclass(frozen=True)
class SampleJob:
    """A set of images to draw.

    Attributes:
        out: dataset directory to write.
        name: dataset name.
        conditions: what to draw from, one after the other; each has a ``label``.
        counts: images of each of them.
        sampler: the sampler and its numbers.
        image_px: (height, width); other sizes than the training size change the field of view, not the um/px.
        batch_size: images a device draws at once.
        seed: random seed for all noise.
        shared_noise: the n-th images of all conditions start from, and use, the same noise (as in the authors' code).
        starts: images to start from; none starts from noise.
        likes: images to be like; none tells the model no features.
        field: windows over each image; none where the network sees it whole.
    """

    out: Path
    name: str
    conditions: tuple[Told, ...]
    counts: tuple[int, ...]
    sampler: sections.SamplerConfig
    image_px: tuple[int, int]
    batch_size: int
    seed: int
    shared_noise: bool = False
    starts: Starts | None = None
    likes: Likes | None = None
    field: FieldOptions | None = None

    def mpp(self, run: Run) -> float:
        """Returns the um/px of the images that a run's model draws."""
        return drawn_mpp(run, self.conditions[0])

    def inputs(self, indices: Int[np.ndarray, "n"]) -> tuple[jax.Array, dict[str, jax.Array], dict[str, jax.Array]]:
        """Returns the numbers of the noise of some images, their conditions and starts, as ``Draw`` takes them."""
        numbers = self.starts.noise_numbers(indices) if self.starts else indices
        if self.shared_noise:
            numbers = numbers // len(self.conditions)
        features = self.likes.batch(indices) if self.likes else {}
        told = {**conditions_of(indices, self.conditions), **features}
        arrays = told, self.starts.batch(indices) if self.starts else {}
        return jnp.asarray(numbers), *jax.tree.map(jnp.asarray, arrays)


def recipe_of(job: SampleJob, model: Model) -> Recipe:
    """Returns how the images of a job are drawn."""
    return Recipe(
        model.run,
        job.sampler,
        job.image_px,
        classifier=model.classifier[0] if model.classifier else None,
        guide=model.guide[0] if model.guide else None,
        field=job.field,
    )


def draw_of(job: SampleJob, model: Model, mesh: Mesh, *, trajectory_frames: int = 0) -> Draw:
    """Returns the function that draws the images of a job."""
    recipe = recipe_of(job, model)
    if recipe.windows is None or trajectory_frames:
        return make_draw(recipe, mesh=mesh, trajectory_frames=trajectory_frames)
    return make_stepwise_draw(recipe, mesh=mesh, file=job.out / STAGING / f"steps-{jax.process_index()}.npz")


def image_indices(counts: Sequence[int]) -> Int[np.ndarray, "n"]:
    """Indices of the images of a job, increasing: those of a condition do not depend on how many the others have."""
    rank, number = np.nonzero(np.arange(max(counts))[:, None] < np.asarray(counts))
    return rank * len(counts) + number


def run_job(job: SampleJob, model: Model, mesh: Mesh) -> manifest.Dataset:
    """Draw the images that a job still lacks and write the data set; a finished job is returned as it is.

    Several processes share the batches of the job; each draws its own on its own devices, and the first writes the
    data set when all are done.

    Args:
        job: the images to draw.
        model: draws them.
        mesh: devices of this process.

    Raises:
        DiffpathError: the directory belongs to another job (exit code 4).
    """
    job, team = as_begun(job), processes.Team()
    settings = _fingerprint(job, model)

    def renew(record: Mapping[str, Any]) -> dict[str, Any]:
        return {**_renewed(record), "batch_size": job.batch_size}

    if team.index == 0:
        growth.take_up(job.out, settings, renew, table=TABLE, split=SPLIT)
    team.wait("images of before are taken up")
    batches = _batches(job, growth.staging_of(job.out, settings, renew))
    team.wait("all know the batches")
    return jobs.run(
        jobs.Job(
            out=job.out,
            settings=settings,
            pieces=list(batches),
            produce=lambda missing: _sampled(job, model, mesh, {piece: batches[piece] for piece in missing}),
            write=lambda staging, units, recorded: _assemble(
                job, model, recorded, [_Stored(staging, unit, batches) for unit in units]
            ),
            title="sample",
            renew=renew,
        ),
        team,
    )


def _batches(job: SampleJob, staging: Staging | None) -> dict[jobs.Piece, Int[np.ndarray, "n"]]:
    """Returns the indices of each batch of a job, those that a smaller set had first."""
    indices, kept = image_indices(job.counts), growth.kept_indices(staging)
    new = np.setdiff1d(indices, kept)
    chunks = {name: new[part] for name, part in growth.batches(staging, len(new), job.batch_size).items()}
    if len(kept):
        chunks = {growth.KEPT: kept, **chunks}
    return {jobs.Piece(name, len(chunk)): chunk for name, chunk in chunks.items()}


class _Stored:
    """Images of a staged unit, by their indices."""

    def __init__(self, staging: Staging, unit: Unit, batches: Mapping[jobs.Piece, Int[np.ndarray, "n"]]) -> None:
        self._staging, self._unit = staging, unit
        self.indices = batches[jobs.Piece(unit.name, unit.count)]

    def batch_sizes(self, default: int) -> Int[np.ndarray, "n"]:
        """Returns how many images were drawn at once with each; ``default`` where the unit does not say it."""
        stated = self._unit.details.get(growth.BATCH_SIZES, default)
        return np.broadcast_to(np.asarray(stated, np.int64), len(self.indices))

    def records(self) -> Iterator[tuple[int, bytes]]:
        """Yields the records with their indices, which increase."""
        return zip(self.indices.tolist(), self._staging.read(self._unit), strict=True)


def _sampled(
    job: SampleJob, model: Model, mesh: Mesh, batches: Mapping[jobs.Piece, Int[np.ndarray, "n"]]
) -> Iterator[jobs.Done]:
    """Records of each batch."""
    for piece, images in _drawn(job, model, mesh, batches):
        details = {growth.BATCH_SIZES: job.batch_size}
        yield jobs.Done(piece, _encode(job, model, batches[piece], images), details)


def _drawn(
    job: SampleJob, model: Model, mesh: Mesh, batches: Mapping[jobs.Piece, Int[np.ndarray, "n"]]
) -> Iterator[tuple[jobs.Piece, np.ndarray]]:
    """Each batch with its images; while one group is handed on, the devices draw the next."""
    draw = draw_of(job, model, mesh)
    weights, key = sharding.replicate(model.weights, mesh), jax.random.key(job.seed)
    pieces = list(batches)
    waiting: tuple[list[jobs.Piece], jax.Array] | None = None
    for first in range(0, len(pieces), mesh.size):
        group = pieces[first : first + mesh.size]
        # Every device gets a full batch: a short one is filled up, and a short group repeats itself. What is over is
        # thrown away.
        full = np.concatenate([np.resize(batches[piece], job.batch_size) for piece in group])
        full = np.resize(full, job.batch_size * mesh.size)
        images, _ = draw(weights, key, *job.inputs(full))
        if waiting:
            yield from _split(*waiting, mesh.size)
        waiting = group, images
    if waiting:
        yield from _split(*waiting, mesh.size)


def _split(group: Sequence[jobs.Piece], images: jax.Array, parts: int) -> Iterator[tuple[jobs.Piece, np.ndarray]]:
    yield from zip(group, np.split(np.asarray(images), parts), strict=False)


def _encode(job: SampleJob, model: Model, indices: Int[np.ndarray, "n"], images: np.ndarray) -> list[bytes]:
    mpp, labels = job.mpp(model.run), conditions_of(indices, job.conditions)[LABEL.name]
    return [
        records.encode(
            records.PatchRecord(
                image=image,
                label=int(label),
                slide=marking.record_source(model.trained.digest),
                patient="",
                mpp=mpp,
                fov_um=job.image_px[1] * mpp,
                index=int(index),
            )
        )
        for index, label, image in zip(indices, labels, images, strict=False)
    ]


def _provenance(job: SampleJob, model: Model) -> dict[str, Any]:
    """Returns everything that made the images, as it is written with each of them."""
    sampler = samplers.sampler(model.run.config, job.sampler)
    provenance = {
        **asdict(job.sampler),
        "evaluations": sampler.num_evaluations,
        **_first_timestep(sampler),
        "seed": job.seed,
        "shared_noise": job.shared_noise,
        "batch_size": job.batch_size,
        "checkpoint_step": model.trained.step,
        "checkpoint_digest": model.trained.digest,
        "averaged_parameters": model.trained.is_ema,
        "run_digest": model.run.digest,
        **({"codec_digest": model.run.latents.digest} if model.run.latents else {}),
    }
    if model.trained.ema_length is not None:
        provenance["ema_length"] = model.trained.ema_length
    if model.classifier:
        provenance["classifier_digest"] = model.classifier[1].digest
    if model.guide:
        provenance |= {"guide_digest": model.guide[1].digest, "guide_step": model.guide[1].step}
    if job.starts:
        provenance |= {f"start_{name}": value for name, value in job.starts.as_json().items()}
        provenance[START_ORIGIN] = job.starts.references.origin
    if job.likes:
        provenance |= {f"like_{name}": value for name, value in job.likes.as_json().items()}
        provenance |= {LIKE_ORIGIN: job.likes.origin} if job.likes.origin else {}
    if job.field:
        provenance |= job.field.as_json()
    return provenance


def _first_timestep(sampler: Sampler) -> dict[str, int]:
    """Returns the time of the first call of the network, by name; nothing where it is not called."""
    first = sampler.step_indices[:1]
    return {"first_timestep": int(sampler.schedule.timesteps[first[0]])} if len(first) else {}


def _fingerprint(job: SampleJob, model: Model) -> dict[str, Any]:
    """Returns everything that decides the pixels."""
    return {
        "parameters": model.trained.digest,
        "run": model.run.digest,
        "classifier": model.classifier[1].digest if model.classifier else "",
        **({"guide": model.guide[1].digest} if model.guide else {}),
        "name": job.name,
        "counts": list(job.counts),
        "sampler": asdict(job.sampler),
        "image_px": list(job.image_px),
        "batch_size": job.batch_size,
        "seed": job.seed,
        "shared_noise": job.shared_noise,
        **({"conditions": others} if (others := _others(job, model.run)) else {}),
        **({"starts": job.starts.as_json()} if job.starts else {}),
        **({"likes": job.likes.as_json()} if job.likes else {}),
        **({"field": job.field.as_json()} if job.field else {}),
    }


def _others(job: SampleJob, run: Run) -> dict[str, str | float | int]:
    """Returns the conditions besides the label; a job has the same for all classes."""
    return named(job.conditions[0], run)


def _renewed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fingerprint of a job as an earlier version recorded it, in today's names, defaults filled in."""

    def renamed(content: Mapping[str, Any]) -> dict[str, Any]:
        return {RENAMED.get(name, name): value for name, value in content.items()}

    sampler = {**asdict(sections.SamplerConfig()), **renamed(record.get("sampler", {}))}
    if _leads(record):
        sampler["spacing"] = spacing.LEADING.name
    return {**renamed(record), "sampler": sampler}


def _leads(record: Mapping[str, Any]) -> bool:
    """Returns true for a job of an earlier version on DDIM's own spacing, which was ``leading`` then."""
    sampler = record.get("sampler", {})
    return "twins" in record and (sampler["sampler"], sampler["spacing"]) == ("ddim", sections.AUTO)


def as_begun(job: SampleJob) -> SampleJob:
    """Returns the job on the spacing that its directory was begun with, so that the same command goes on with it."""
    record = recorded_job(job.out)
    if record is None or not _leads(record) or job.sampler.spacing != sections.AUTO:
        return job
    return replace(job, sampler=replace(job.sampler, spacing=spacing.LEADING.name))


def _repeated(value: str | int | float, count: int) -> pa.Array:
    """A column of one value; text is stored once."""
    if isinstance(value, str):
        return pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [value])
    return pa.repeat(value, count)


def _assemble(
    job: SampleJob,
    model: Model,
    record: Mapping[str, Any],
    stored: Sequence[_Stored],
) -> None:
    run, indices = model.run, image_indices(job.counts)
    schema = records.Schema(job.image_px, run.classes)
    labels = conditions_of(indices, job.conditions)[LABEL.name]
    mpp = job.mpp(run)
    scale = {"mpp": mpp, "fov_um": job.image_px[1] * mpp}
    provenance = _provenance(job, model)
    details = Details(
        kind=marking.GENERATED,
        mpp=mpp,
        fov_um=scale["fov_um"],
        job=dict(record),
        command="diffpath sample",
        sampling=provenance,
        training_data=tuple(run.images),
        versions=writer.versions("jax", "flax"),
    )
    # Those of before, then those drawn now; either increase.
    parts = [part for part in (stored[:1], stored[1:]) if part]
    in_order = heapq.merge(*(itertools.chain.from_iterable(each.records() for each in part) for part in parts))
    sizes = np.concatenate([each.batch_sizes(record.get("batch_size", job.batch_size)) for each in stored])
    drawn = np.argsort(np.concatenate([each.indices for each in stored]))
    rows = {
        "index": indices,
        marking.COLUMN: _repeated(marking.SOURCE_TYPE, len(indices)),
        "class": pa.DictionaryArray.from_arrays(labels, list(run.classes)),
        **{key: _repeated(value, len(indices)) for key, value in {**scale, **provenance}.items()},
        **(job.starts.columns(indices) if job.starts else {}),
        **(job.likes.columns(indices) if job.likes else {}),
        "batch_size": sizes[drawn],
    }
    # Columns of a user's table may have any name: those of this one stay what they are.
    rows |= {name: _repeated(value, len(indices)) for name, value in _others(job, run).items() if name not in rows}
    with replace_file(job.out / TABLE) as temporary:
        pq.write_table(pa.table(rows), temporary)
    writer.write_dataset(
        job.out,
        name=job.name,
        schema=schema,
        splits={SPLIT: labels.tolist()},
        items={SPLIT: (data for _, data in in_order)},
        details=details,
        card=card.dataset_card(job.name, schema, {SPLIT: labels.tolist()}, details),
        tables=[TABLE],
    )
