"""Pixel DDPM of the paper on PKGH_336: the model of PKGH_224 on 192 px patches of fields of 336 um.

Prepare them with `prep --preset pkgh336_um_192`; `pkgh336_um` resizes to 128 px instead (docs/DEVIATIONS.md).

Paper: Table 3, "DDPM" columns (FID / KID): DDPM sampler 18.45 / .0129, eps scaling 1.014 45.12 / .0418, DDIM
21.34 / .0159. Expected: not measured yet, the data are not public. Variants and options are those of ddpm_pkgh224.py;
a step costs 2.25 times as much at 192 px.
Command: diffpath train --config configs/ddpm_pkgh336.py --workdir RUN --config.data.train=DATASET
Variants: (none) or paper, small, best, author_code, debug.
"""

import ddpm_pkgh224
from ml_collections import ConfigDict


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return ddpm_pkgh224.get_config(variant)
