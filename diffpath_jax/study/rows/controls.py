"""Rows of controls, which would explain a gain without any worth of generated images, and of filters."""

from diffpath_jax.study.results import Results
from diffpath_jax.study.row import NEW, Row
from diffpath_jax.study.rows import arms
from diffpath_jax.study.step import Step
from diffpath_jax.study.steps import StudySteps
from diffpath_jax.study.table import Section

# --- T5f: controls; T5g: filters


def controls(study: StudySteps) -> Step:
    """Returns the comparison with what would explain a gain without any worth of generated images."""
    dataset, config = study.config.first()[0], study.config
    seed = ("--seed", str(config.seed))
    stained = f"--config.classifier.stain_jitter={config.worth.strong_stain_jitter:g}"
    shuffled = study.transformed(f"{dataset}/sets/shuffled", generated_once(study), "--shuffle_labels", *seed)
    compared = [
        arms.baseline(study),
        arms.with_real(study, 1.0),
        study.arm(dataset, "real_twice", (arms.real(study), arms.real(study)), (1.0, 1.0)),
        study.arm(dataset, "stain_augmented", (arms.real(study),), options=stained),
        arms.mixed(study, "shuffled_labels", (1.0, 1.0), shuffled),
        # The best that a generator can do that only copies.
        arms.mixed(study, "copies", (1.0, 1.0), study.dataset(dataset)),
    ]
    return arms.compare(study, "T5f", compared)


def generated_once(study: StudySteps) -> Step:
    """Returns generated images, as many as the real training images."""
    return arms.generated(study, "once", 1.0)


_CONTROLS = {
    arms.REAL: "real",
    arms.BOTH: "real and generated",
    "real_twice": "real, each twice",
    "stain_augmented": "real, strong stain augmentation",
    "shuffled_labels": "real and generated with shuffled labels",
    "copies": "real and the generator's own training images in place of generated ones",
}


def _show_controls(study: StudySteps, results: Results) -> Section:
    notes = ("A gain of generated images counts only above these: they add no new image, or no label.",)
    return arms.arms_section(results, "T5f", "Controls", controls(study), list(_CONTROLS.items()), notes)


def filters(study: StudySteps) -> Step:
    """Returns the comparison of all generated images with those that a filter keeps."""
    dataset, once = study.config.first()[0], generated_once(study)
    judge = study.classifier_of_all(dataset)
    confident = study.transformed(
        f"{dataset}/sets/confident",
        once,
        *("--confident", str(judge.out), "--at_least", f"{study.config.worth.confidence:g}"),
        needs=(judge,),
    )
    audit = study.evaluation("once", dataset, once, "--floor", "none")
    clean = study.transformed(f"{dataset}/sets/clean", once, "--clean", str(audit.out), needs=(audit,))
    compared = [
        arms.baseline(study),
        study.arm(dataset, "unfiltered", (arms.real(study), once)),
        study.arm(dataset, "confident", (arms.real(study), confident)),
        study.arm(dataset, "clean", (arms.real(study), clean)),
    ]
    return arms.compare(study, "T5g", compared)


def _show_filters(study: StudySteps, results: Results) -> Section:
    titles = {
        arms.REAL: "real",
        "unfiltered": "real and generated",
        "confident": f"... of which a classifier is sure (at least {study.config.worth.confidence:g})",
        "clean": "... of which the audit calls none a copy",
    }
    return arms.arms_section(results, "T5g", "Filters", filters(study), list(titles.items()))


ROWS = (
    Row("T5f", "Controls", NEW, lambda study: [controls(study)], _show_controls),
    Row("T5g", "Filters", NEW, lambda study: [filters(study)], _show_filters),
)
