"""Latent diffusion of the paper on PKGH_336: the model of PKGH_224 on 192 px patches of fields of 336 um.

Prepare them with `prep --preset pkgh336_um_192`; `pkgh336_um` resizes to 128 px instead (docs/DEVIATIONS.md).

Paper: Table 3, "LDM" columns (FID / KID): DDPM sampler 23.10 / .0160, DDIM 26.41 / .0199. Expected: not measured yet,
the data are not public. Variants and options are those of ldm_pkgh224.py, a step costs 2.25 times as much at 192 px,
and the first stage may be the same.
Command: diffpath train --config configs/ldm_pkgh336.py --workdir RUN --config.data.train=LATENTS \
    --config.codec.first_stage=VQGAN
Variants: (none) or paper, small, best, author_code, debug.
"""

import ldm_pkgh224
from ml_collections import ConfigDict


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return ldm_pkgh224.get_config(variant)
