"""The works whose methods a run, a sample set or an evaluation used, as BibTeX.

A setting that comes from a publication is one line of a table here, and the publication one entry of
``references.bib``.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffpath_jax.data.manifest import MANIFEST, open_dataset
from diffpath_jax.evaluation import record
from diffpath_jax.evaluation.record import METRICS, AuditRecord, EvaluationRecord
from diffpath_jax.runs import description
from diffpath_jax.runs import run as runs

# Any value but those that leave a method out.
USED = object()
UNUSED: tuple[object, ...] = (0, 0.0, 1.0, "", "none", None, False, (), [])


@dataclass(frozen=True)
class Use:
    """A setting, and what is to be cited for it.

    Attributes:
        key: dotted key of a config, or of the record of a sample set.
        value: its value; ``USED`` for any that is not one of ``UNUSED``.
        works: keys of ``references.bib``.
    """

    key: str
    value: object
    works: tuple[str, ...]


OF_A_RUN = (
    Use("task", "diffusion", ("ho2020ddpm",)),
    Use("task", "noisy_classification", ("dhariwal2021beat",)),
    Use("network.kind", "unet_adm", ("dhariwal2021beat",)),
    Use("network.kind", "unet_authors", ("ho2020ddpm",)),
    Use("network.kind", "unet_ldm", ("rombach2022ldm",)),
    Use("network.kind", "vq_autoencoder", ("oord2017vqvae", "esser2021taming")),
    Use("network.kind", "kl_autoencoder", ("kingma2014vae", "rombach2022ldm")),
    Use("network.kind", "resnet", ("he2016resnet",)),
    Use("network.learn_sigma", True, ("nichol2021improved",)),
    Use("network.feature_width", USED, ("yellapragada2025pixcell",)),
    Use("noise.schedule", "cosine", ("nichol2021improved",)),
    Use("noise.snr_factor", USED, ("hoogeboom2023simple",)),
    Use("diffusion.prediction", "v", ("salimans2022distillation",)),
    Use("diffusion.loss", "hybrid", ("nichol2021improved",)),
    Use("diffusion.loss", "min_snr", ("hang2023minsnr",)),
    Use("diffusion.loss", "sigmoid", ("kingma2023understanding",)),
    Use("diffusion.timesteps", "loss_aware", ("nichol2021improved",)),
    Use("diffusion.timesteps", "logit_normal", ("esser2024scaling",)),
    Use("diffusion.label_dropout", USED, ("ho2022guidance",)),
    Use("diffusion.input_perturbation", USED, ("ning2023perturbation",)),
    Use("codec.first_stage", USED, ("rombach2022ldm",)),
    Use("autoencoding.lpips", USED, ("zhang2018lpips",)),
    Use("autoencoding.adversarial_weight", USED, ("isola2017pix2pix", "esser2021taming")),
    Use("classifier.stain_jitter", USED, ("tellez2018hed",)),
    Use("classifier.randaugment_ops", USED, ("cubuk2020randaugment",)),
    Use("optim.learning_rate", USED, ("loshchilov2019adamw",)),
    Use("optim.muon_learning_rate", USED, ("jordan2024muon",)),
    Use("optim.ema_lengths", USED, ("karras2024edm2",)),
)
OF_SAMPLES = (
    Use("sampler", "ddpm", ("ho2020ddpm",)),
    Use("sampler", "ddpm_author_code", ("ho2020ddpm",)),
    Use("sampler", "ddim", ("song2021ddim",)),
    Use("sampler", "ddim_guided_diffusion", ("song2021ddim", "dhariwal2021beat")),
    Use("sampler", "ddim_author_code", ("song2021ddim",)),
    Use("sampler", "heun", ("karras2022edm",)),
    Use("sampler", "dpmpp", ("lu2022dpmpp",)),
    Use("sampler", "unipc", ("zhao2023unipc",)),
    Use("eps_scale", USED, ("ning2024elucidating",)),
    Use("guidance", USED, ("ho2022guidance",)),
    Use("guidance_from", USED, ("kynkaanniemi2024interval",)),
    Use("guidance_to", USED, ("kynkaanniemi2024interval",)),
    Use("guide_weight", USED, ("karras2024autoguidance",)),
    Use("ema_length", USED, ("karras2024edm2",)),
    Use("classifier_scale", USED, ("dhariwal2021beat",)),
    Use("thresholding", "dynamic", ("saharia2022imagen",)),
    Use("start_level", USED, ("meng2022sdedit",)),
    Use("start_between", USED, ("ho2020ddpm",)),
    Use("start_masks", USED, ("song2021score",)),
    Use("repeats", USED, ("lugmayr2022repaint",)),
    Use("window_px", USED, ("bartal2023multidiffusion",)),
)
# By words of a metric's name.
OF_METRICS = {
    "FID": ("heusel2017fid", "szegedy2016inception"),
    "FD-": ("heusel2017fid",),
    "sFID": ("nash2021generating",),
    "-spatial": ("nash2021generating",),
    "Inception Score": ("salimans2016improved", "szegedy2016inception"),
    "IS-": ("salimans2016improved",),
    "infinity": ("chong2020unbiased",),
    "KID": ("binkowski2018kid", "szegedy2016inception"),
    "KD-": ("binkowski2018kid",),
    "precision": ("kynkaanniemi2019precision",),
    "recall": ("kynkaanniemi2019precision",),
    "density": ("naeem2020reliable",),
    "coverage": ("naeem2020reliable",),
    "haematoxylin": ("ruifrok2001colour",),
    "eosin": ("ruifrok2001colour",),
}
OF_AUDITS = ("meehan2020copying", "carlini2023extracting")
OF_CLASSIFIERS = ("ravuri2019classification", "guo2017calibration")
CLEAN_RESIZE = ("parmar2022clean",)


def of_settings(uses: Iterable[Use], settings: Mapping[str, Any]) -> set[str]:
    """Returns what is to be cited for settings.

    Args:
        uses: table of settings that come from publications.
        settings: sections within sections, as a config is stored.
    """
    found: set[str] = set()
    for use in uses:
        value = _value(settings, use.key)
        if value == use.value or (use.value is USED and value not in UNUSED):
            found.update(use.works)
    return found


def of_metrics(names: Iterable[str]) -> set[str]:
    """Returns what is to be cited for metrics, by their names."""
    return {work for name in names for word, works in OF_METRICS.items() if word in name for work in works}


def of_directory(directory: Path) -> set[str]:
    """Returns what is to be cited for all runs, sample sets and evaluations in and below a directory.

    Raises:
        DiffpathError: one of them is damaged.
    """
    works: set[str] = set()
    for path in directory.rglob(description.RUN):
        works |= of_settings(OF_A_RUN, runs.open_run(path.parent).config.as_json())
    for path in directory.rglob(MANIFEST):
        works |= of_settings(OF_SAMPLES, open_dataset(path.parent, verify=False).details.sampling or {})
    for path in directory.rglob(METRICS):
        works |= of_evaluation(record.read(path))
    return works


def of_evaluation(evaluation: EvaluationRecord) -> set[str]:
    """Returns what is to be cited for an evaluation."""
    tables = [distances.rows for distances in evaluation.distances or ()] + [evaluation.stain or {}]
    rows = [row for table in tables for groups in table.values() for row in groups.values()]
    works = of_metrics(name for row in rows for name in row.metrics)
    if any(distances.features.resize == "clean" for distances in evaluation.distances or ()):
        works.update(CLEAN_RESIZE)
    if isinstance(evaluation.audit, AuditRecord):
        works.update(OF_AUDITS)
    if evaluation.classification:
        works.update(OF_CLASSIFIERS)
    return works


def bibliography() -> dict[str, str]:
    """Returns every entry of ``references.bib`` by its key."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    return {re.split(r"[{,]", entry, maxsplit=2)[1]: entry.strip() for entry in re.split(r"(?m)^(?=@)", text) if entry}


def _value(settings: Mapping[str, Any], key: str) -> object:
    value: object = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
