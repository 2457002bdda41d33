"""Latent diffusion of the paper on PKGH_336: the model of PKGH_224 on patches of a 336 field.

Paper: Table 3, "LDM" columns (FID / KID): DDPM sampler 23.10 / .0160, DDIM 26.41 / .0199. Expected: not measured yet,
the data are not public. Only the field of view of the data differs, so variants, cost and options are those of
ldm_pkgh224.py; the first stage may be the same.
Command: diffpath train --config configs/ldm_pkgh336.py --workdir RUN --config.data.train=LATENTS \
    --config.codec.first_stage=VQGAN
Variants: (none) or paper, small, author_code, debug.
"""

import ldm_pkgh224
from ml_collections import ConfigDict


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return ldm_pkgh224.get_config(variant)
