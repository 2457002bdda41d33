"""The study on public colorectal patches, tested on other patients: NCT-CRC-HE-100K and CRC-VAL-HE-7K.

Data (Kather et al. 2018, CC BY 4.0, https://zenodo.org/records/1214456): NCT-CRC-HE-100K.zip (11.7 GB, 86 patients) to
train and validate, CRC-VAL-HE-7K.zip (0.8 GB, 50 other patients) to test; 224 px at 0.5 um/px, nine classes;
docs/STUDY.md states their MD5 sums. Unpack them as
    nct_crc/train/ADI/*.tif ... nct_crc/train/TUM/*.tif     (NCT-CRC-HE-100K)
    nct_crc/test/ADI/*.tif  ... nct_crc/test/TUM/*.tif      (CRC-VAL-HE-7K)
and write splits.csv (docs/STUDY.md has the lines): every tenth training image for validation. Which images are of one
patient is not published, so validation is optimistic, and intervals are over images; the page says both.

Paper: none; its questions, on data that anyone can have. Expected: not measured yet.
Command: diffpath study --config diffpath:study_nct_crc --workdir STUDY, beside nct_crc and splits.csv.
Cost: --dry_run prints it. Variants: (none), small: ADM of 128 px for one GPU; debug: tiny networks, for tests.
"""

import study_pkgh
from ml_collections import ConfigDict

PREP = "--images nct_crc --patients splits.csv --mpp 0.5"
# Previews of 128 px would take an hour of a core.
DEBUG_PX = 32


def study(debug: bool) -> ConfigDict:
    """The study, or its ``debug`` variant."""
    variant = "debug" if debug else "small"
    config = study_pkgh.study(variant)
    config.title = "What synthetic colorectal patches are worth: NCT-CRC-HE-100K, tested on CRC-VAL-HE-7K"
    config.notes = (
        "Test patients are others than those of training, by construction of the data. Validation images are drawn "
        "from the training slides, so their numbers are optimistic, and images count as independent in intervals.",
    )
    config.datasets = {
        "nct_crc": {
            "title": "NCT-CRC",
            "prep": f"{PREP} --patch_px {DEBUG_PX if debug else 128}",
            "models": ("ddpm_224", "ldm_224"),
        }
    }
    config.measured = ("nct_crc",)
    # Patches cannot be cut larger, and patients are not known.
    config.patch_sizes = ()
    config.worth.update({"patient_shares": (), "scarce_class": ""})
    return debugged(config) if debug else config


def debugged(config: ConfigDict) -> ConfigDict:
    """Returns a study of few images, amounts and seeds, in the features of its own classifier, for tests."""
    config.features = ("classifier",)
    config.num_per_class, config.resamples = 4, 20
    for dataset in config.datasets.values():
        if "patch_px" in dataset:
            dataset.patch_px = DEBUG_PX
    config.classifier.update({"options": "", "seeds": 2})
    config.worth.update({"alone": (1.0,), "added": (1.0,), "real_per_class": 4})
    for sampler in config.samplers.values():
        sampler.options = f"{sampler.options} --steps 2"
    return config


def get_config(variant: str = "small") -> ConfigDict:
    """The config of a variant."""
    if variant not in ("small", "debug"):
        raise ValueError(f"unknown variant {variant!r}; known are small and debug")
    return study(variant == "debug")
