"""Pixel DDPM of the paper on PKGH_336: the model of PKGH_224 on patches of a 336 field.

Paper: Table 3, "DDPM" columns (FID / KID): DDPM sampler 18.45 / .0129, eps scaling 1.014 45.12 / .0418, DDIM
21.34 / .0159. Expected: not measured yet, the data are not public. Only the field of view of the data differs, so
variants, cost and options are those of ddpm_pkgh224.py.
Command: diffpath train --config configs/ddpm_pkgh336.py --workdir RUN --config.data.train=DATASET
Variants: (none) or paper, small, author_code, debug.
"""

import ddpm_pkgh224
from ml_collections import ConfigDict


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return ddpm_pkgh224.get_config(variant)
