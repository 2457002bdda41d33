"""Reconstructions by an autoencoder: a data set of them, their errors, and a picture.

The reconstructions are a generated set like any other, so ``diffpath eval`` measures their distance (rFID).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffpath_jax.config.first_stage import FirstStage
from diffpath_jax.data import manifest, marking, records
from diffpath_jax.data import transform as derive
from diffpath_jax.devices.batched import batched
from diffpath_jax.io.sealed import write_sealed
from diffpath_jax.latents.first_stage import round_trip
from diffpath_jax.metrics import stain
from diffpath_jax.metrics.reconstruction import codebook_usage, count_codes, psnr, reduced_and_enlarged, ssim
from diffpath_jax.render import image_grid

METRICS, SHEET = "reconstruction.json", "reconstructions.png"
SHOWN = 12
MEASURES = ("psnr", "ssim", "baseline_psnr", "baseline_ssim")


def reconstruct(
    source: manifest.Dataset, stage: FirstStage, *, split: str, out: Path, name: str, factor: int, dtype: str
) -> tuple[manifest.Dataset, dict[str, Any]]:
    """Write the reconstructions of a split.

    Args:
        source: images.
        stage: autoencoder.
        split: which of its images.
        out: directory to write.
        name: data set name.
        factor: image pixels a latent pixel; the baseline loses as many.
        dtype: of activations.

    Returns:
        The data set, and the means over its images.

    Raises:
        DiffpathError: no such split, or the directory belongs to another job (exit code 4).
    """
    settings = {"first_stage": stage.digest, "dtype": dtype}
    job = derive.Derivation(
        out,
        name,
        source,
        (split,),
        replace(source.schema, feature_width=None),
        settings,
        _round_trip(stage, factor=factor, dtype=dtype),
    )

    def describe(units: Mapping[str, Sequence[Mapping[str, Any]]]) -> Mapping[str, Any]:
        return {
            "kind": marking.GENERATED,
            "command": "diffpath reconstruct",
            "first_stage": stage.digest,
            "training_data": (),
            "reconstruction": {**_summary(units[split], factor), "split": split},
        }

    dataset = derive.run(job, describe, title="reconstruct")
    averages = dict(dataset.details.reconstruction or {})
    write_sealed(out / METRICS, {**averages, "first_stage": stage.digest, "data": source.digest})
    _draw(out / "qa" / SHEET, source, dataset, split, factor)
    return dataset, averages


def _round_trip(stage: FirstStage, *, factor: int, dtype: str) -> derive.Transform:
    """Images to what comes back of them, and how near it is, image by image."""
    run = batched(round_trip(stage.network, dtype))

    def transform(
        images: Sequence[records.PatchRecord], split: str, start: int
    ) -> tuple[Iterable[records.PatchRecord], Mapping[str, Any]]:
        real = derive.stacked(images)
        (back, codes), plain = run(stage.params, real), reduced_and_enlarged(real, factor)
        measured = (psnr(back, real), ssim(back, real), psnr(plain, real), ssim(plain, real))
        moments = [stain.image_moments(each).mean(axis=0).tolist() for each in (real, back)]
        source = marking.record_source(stage.digest)
        reconstructions = [
            replace(record, image=image, slide=source, patient="", features=None)
            for record, image in zip(images, back, strict=True)
        ]
        values = {measure: values.tolist() for measure, values in zip(MEASURES, measured, strict=True)}
        usage = {} if codes is None else {"codes": count_codes(codes, stage.network.codebook_size).tolist()}
        return reconstructions, {**values, **usage, "stain": moments}

    return transform


def _summary(units: Sequence[Mapping[str, Any]], factor: int) -> dict[str, Any]:
    """Means over all images, and which codes they use."""
    values = {measure: np.concatenate([unit[measure] for unit in units]) for measure in MEASURES}
    weights = [len(unit["psnr"]) for unit in units]
    real, back = (stain.of_moments(m) for m in np.average([u["stain"] for u in units], axis=0, weights=weights))
    return {
        **{measure: float(each[np.isfinite(each)].mean()) for measure, each in values.items()},
        "baseline": f"mean over {factor} x {factor} px, enlarged by bicubic interpolation",
        "images": sum(weights),
        **{f"stain/{name}": value for name, value in stain.stain_drift(back, real).items()},
        **(codebook_usage(np.sum([unit["codes"] for unit in units], axis=0)) if "codes" in units[0] else {}),
    }


def _draw(path: Path, source: manifest.Dataset, dataset: manifest.Dataset, split: str, factor: int) -> None:
    """Images spread over the split, what came back, what the baseline leaves, and the error (grey: none)."""
    chosen = set(np.linspace(0, source.count(split) - 1, min(SHOWN, source.count(split))).astype(int).tolist())
    real, back = (
        np.stack([record.image for index, record in enumerate(found.read(split)) if index in chosen])
        for found in (source, dataset)
    )
    error = np.clip(128 + (back.astype(np.int16) - real), 0, 255).astype(np.uint8)
    rows = {"image": real, "reconstruction": back, "baseline": reduced_and_enlarged(real, factor), "error": error}
    image_grid.write_png(path, image_grid.sheet(rows, [""]), marking.about())
