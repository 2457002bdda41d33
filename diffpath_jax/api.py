"""The library in ten names.

    from pathlib import Path
    from diffpath_jax import api as diffpath

    run = diffpath.open_run(Path("runs/ddpm"))
    samples = diffpath.sample(run, Path("samples/a"), num_per_class=100, sampler="dpmpp", steps=20)
    record = diffpath.evaluate(Path("data/colon"), samples.directory, features=[Path("runs/resnet")])

The names are those of the command line where it has them, and do the same: :func:`sample` with the numbers of a
``diffpath sample`` draws the same pixels. Whoever needs more imports the modules that stand behind.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from diffpath_jax.config import sampling as samplers
from diffpath_jax.config import size_checks
from diffpath_jax.config.files import convert
from diffpath_jax.config.sections import SamplerConfig
from diffpath_jax.data.manifest import Dataset, open_dataset
from diffpath_jax.data.records import FieldOfView
from diffpath_jax.devices import sharding
from diffpath_jax.evaluation import image_sets
from diffpath_jax.evaluation import job as evaluation_job
from diffpath_jax.evaluation.feature_cache import FeatureStore, default_directory
from diffpath_jax.evaluation.features.open import open_extractor
from diffpath_jax.evaluation.record import EvaluationRecord, SkippedAudit
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.metrics import fid, kid
from diffpath_jax.metrics.bootstrap import BootstrapConfig
from diffpath_jax.runs.run import DiffusionModelRun, Run, diffusion_model, load_parameters, open_run
from diffpath_jax.sampling import job as sampling_job
from diffpath_jax.sampling.draw import Model, check_classes
from diffpath_jax.sampling.likes import open_likes
from diffpath_jax.sampling.references import refer
from diffpath_jax.sampling.starts import open_starts
from diffpath_jax.sampling.told import Said, drawn_mpp, for_each_class, told_of

__all__ = [
    "Dataset",
    "Run",
    "evaluate",
    "extract_features",
    "frechet_distance",
    "kernel_distance",
    "open_dataset",
    "open_run",
    "read_fields",
    "sample",
]

Features = Float[np.ndarray, "_ d"]


def sample(
    run: Run,
    out: Path,
    *,
    num_per_class: int | Mapping[str, int],
    seed: int = 0,
    patch_px: int | None = None,
    batch_size: int = 64,
    conditions: Said | None = None,
    checkpoint: int | Literal["latest", "best"] = "latest",
    name: str = "generated",
    start: Path | None = None,
    start_split: str = "test",
    like: Path | None = None,
    like_split: str = "test",
    allow_training_references: bool = False,
    **sampler: Any,
) -> Dataset:
    """Draw images from a trained diffusion model, as ``diffpath sample`` does; called again, it goes on.

    Args:
        run: the model.
        out: directory of the data set to write.
        num_per_class: images of each class, or of the classes named.
        seed: random seed for all noise.
        patch_px: side of the images; that of training if not given.
        batch_size: images a device draws at once.
        conditions: what the model is told besides the class, by name: numbers, or words of a table's columns.
        checkpoint: which parameters.
        name: of the data set.
        start: data set whose images are started from, by class; add a ``start_level`` below 1.
        start_split: of that.
        like: data set of ``diffpath encode --features`` whose images samples are to be like, by class.
        like_split: of that.
        allow_training_references: they may be images that the model was trained on, which every record then says.
        **sampler: fields of :class:`diffpath_jax.config.sections.SamplerConfig`, such as ``sampler`` and ``steps``.

    Returns:
        The data set; ``read("train")`` gives its images.

    Raises:
        DiffpathError: a value that does not fit, a class that the model does not know, a directory of another job, or
            images that the model was trained on.
    """
    run = diffusion_model(run, fix="open one")
    image_px = run.image_px if patch_px is None else (patch_px, patch_px)
    told, counts = for_each_class(run, told_of(conditions or {}, run)), _counts(num_per_class, run)
    options = _sampler(run, sampler, image_px, start=start is not None)
    common: dict[str, Any] = {"counts": counts, "seed": seed, "allow_training": allow_training_references}
    starts = None
    if start:
        references = refer(dataset := open_dataset(start), start_split, run, option="start", least=1, **common)
        starts = open_starts(references, dataset, image_px=image_px, mpp=drawn_mpp(run, told[0]))
    job = sampling_job.SampleJob(
        out=out,
        name=name,
        conditions=told,
        counts=counts,
        sampler=options,
        image_px=image_px,
        batch_size=batch_size,
        seed=seed,
        starts=starts,
        likes=open_likes(open_dataset(like), like_split, run, **common) if like else None,
    )
    model = Model(run, load_parameters(run, step=checkpoint))
    return sampling_job.run_job(job, model, sharding.local_mesh())


def _sampler(
    run: DiffusionModelRun, options: Mapping[str, Any], image_px: tuple[int, int], *, start: bool
) -> SamplerConfig:
    """A sampler that serves a run at a size.

    Raises:
        DiffpathError: it does not.
    """
    sampler = convert(SamplerConfig, options, where="the arguments of sample")
    samplers.check_sampler(run.config, sampler, classifier=False, start=start)
    fix = "choose a multiple of it as patch_px"
    size_checks.check_image_size(run.config, image_px, first_stage=run.latents, where="patch_px", fix=fix)
    return sampler


def _counts(num_per_class: int | Mapping[str, int], run: Run) -> tuple[int, ...]:
    """Images of each class of a run.

    Raises:
        DiffpathError: a class that the run does not know, or no image at all.
    """
    counts = num_per_class if isinstance(num_per_class, Mapping) else dict.fromkeys(run.classes, num_per_class)
    check_classes(counts, run)
    if min(counts.values(), default=0) < 0 or not any(counts.values()):
        why, fix = "no image is asked for", "give 1 or more for a class"
        raise DiffpathError("num_per_class", where="sample", why=why, fix=fix)
    return tuple(counts.get(name, 0) for name in run.classes)


def extract_features(images: UInt8[np.ndarray, "n h w 3"], extractor: Path, *, resize: str = "tf_bilinear") -> Features:
    """Returns the features of images in a network.

    Args:
        images: uint8 RGB.
        extractor: a classifier run, ``inception.safetensors`` of ``diffpath convert``, or an ONNX file.
        resize: how images are brought to Inception's size.

    Raises:
        DiffpathError: the extractor is none, or takes images of another size.
    """
    return open_extractor(extractor, resize=resize).extract(images)


def frechet_distance(x: Features, y: Features) -> float:
    """Returns the Frechet distance of two sets of features: FID, where they are those of the published Inception."""
    return fid.frechet_distance(fid.fit_gaussian(x), fid.fit_gaussian(y))


def kernel_distance(x: Features, y: Features) -> float:
    """Returns the squared kernel distance of two sets of features over all pairs: KID, in the published Inception's."""
    return kid.squared_mmd(x, y)


def evaluate(
    real: Path,
    generated: Path,
    *,
    features: Sequence[Path],
    split: str = "test",
    resamples: int = 100,
    seed: int = 0,
    resize: str = "tf_bilinear",
    cache: Path | None = None,
) -> EvaluationRecord:
    """Returns distances of a set from real images with intervals, and its stain, as ``diffpath eval`` writes them.

    Args:
        real: data set, folder of images by class, or statistics.
        generated: likewise.
        features: networks to measure in; see :func:`extract_features`.
        split: of the real data set.
        resamples: for intervals; 0 for none.
        seed: random seed of subsets and resamples.
        resize: how images are brought to Inception's size.
        cache: directory where features are kept; the user's own if not given.

    Raises:
        DiffpathError: sets that cannot be compared, or a missing or damaged input.
    """
    evaluation = evaluation_job.Evaluation(
        reference=image_sets.open_set(real, split=split),
        other=image_sets.open_set(generated, split="train"),
        floor=None,
        extractors=[open_extractor(path, resize=resize) for path in features],
        classifiers=[],
        audit=SkippedAudit("not asked for"),
        config=BootstrapConfig(resamples, seed, influence=True),
    )
    return evaluation_job.measure(evaluation, FeatureStore(cache or default_directory()))


def read_fields(
    slide: Path, annotations: Path | None = None, *, fov_um: float | int, patch_px: int, **options: Any
) -> Iterator[FieldOfView]:
    """Returns the fields of view of a slide with their images, at true um/px; needs the extra ``prep``.

    Args:
        slide: whole-slide image.
        annotations: its regions; without them all tissue is read.
        fov_um: side of a field in um.
        patch_px: side of its image in pixels.
        **options: see :func:`data_prep.fields.read.fields_of_slide`.

    Raises:
        DiffpathError: the slide or its annotations cannot be read.
    """
    from data_prep.fields.read import fields_of_slide

    return fields_of_slide(slide, annotations, fov_um=fov_um, patch_px=patch_px, **options)
