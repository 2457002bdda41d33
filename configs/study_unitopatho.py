"""The study on UniToPatho: 292 slides of 292 patients, colorectal polyps as in the paper, at the paper's fields.

Data (Barbano et al. 2021, https://ieee-dataport.org/open-access/unitopatho): the part of 800 um, PNG files of 1812 px
at 0.4415 um/px; NORM, HP, and tubular and tubulovillous adenoma of low and high grade (TA.LG, TA.HG, TVA.LG, TVA.HG,
here TA and TVA), with the authors' train.csv and test.csv. docs/STUDY.md has the lines that write slides/*.tif (tiled),
labels.csv, mpp.csv, patients.csv and classes.json from theirs; their test patients stay test patients.

Paper: its tables at true scale, on data that anyone can have; there are no sessile serrated lesions here. Expected: not
measured yet.
Command: diffpath study --config diffpath:study_unitopatho --workdir STUDY --config.slides=slides
Cost: --dry_run prints it. Variants: (none), small: networks for one GPU; debug: tiny networks, for tests.
"""

import study_nct_crc
import study_pkgh
from ml_collections import ConfigDict

PREP = "--slide_labels labels.csv --mpp_csv mpp.csv --patients patients.csv --classes classes.json"


def study(debug: bool) -> ConfigDict:
    """The study, or its ``debug`` variant."""
    config = study_pkgh.study("debug" if debug else "small")
    config.title = "What synthetic polyp patches are worth: UniToPatho, patients held out"
    config.notes = ("292 slides of as many patients; no sessile serrated lesions, which are a class of the paper.",)
    for dataset in config.datasets.values():
        dataset.prep = PREP
    if debug:
        return study_nct_crc.debugged(config)
    # A fifth of the slides show it, so that a twentieth of its patients are still some.
    config.worth.scarce_class = "TVA"
    return config


def get_config(variant: str = "small") -> ConfigDict:
    """The config of a variant."""
    if variant not in ("small", "debug"):
        raise ValueError(f"unknown variant {variant!r}; known are small and debug")
    return study(variant == "debug")
