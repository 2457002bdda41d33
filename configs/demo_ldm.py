"""Latent diffusion of the demo: 64 px patches of one slide as 16 x 16 latents, a few minutes on two CPU cores.

Paper table: none; it shows that latent diffusion works. Cost: about 3 minutes on 2 cores. Expected: the generated
classes are told apart at a glance; the numbers are those of a toy.
Command: diffpath train --config configs/demo_ldm.py --workdir RUN --config.data.train=LATENTS \
    --config.codec.first_stage=VQGAN
where VQGAN is a run of configs/demo_vqgan.py and LATENTS were written by `diffpath encode --augment hflip`.
Variants: (none) the demo; :debug two steps of a tiny network, for tests.
"""

import common
from ml_collections import ConfigDict


def demo(debug: bool) -> ConfigDict:
    """The demo's model, or its ``debug`` variant."""
    return ConfigDict(
        {
            "task": "diffusion",
            "seed": 0,
            "dtype": "float32",
            # Left-right flips alone, as in pixels: with all 8 symmetries the fibres of the dermis lost their direction.
            "data": {**common.data(8 if debug else 16, workers=0), "augment": "hflip", "balanced": True},
            "network": {
                "kind": "unet_ldm",
                "channels": 16 if debug else 64,
                "channel_mult": (1, 1),
                "num_res_blocks": 1,
                "attention_downsamples": (2,),
                "num_heads": 4,
                "context_width": 64,
                "groups": 8 if debug else 32,
            },
            "codec": {"first_stage": "", "scale": 0.0},
            # As in pixels, x0 with min-SNR weights brings borders of nuclei and fibres in minutes; v, with twice the
            # channels below the first level and twice the time, is at as small a distance and blurred to the eye.
            "noise": {"schedule": "cosine", "num_steps": 1000},
            "diffusion": {"prediction": "x0", "loss": "min_snr", "label_dropout": 0.1},
            "optim": common.demo_optim(debug, ema_decay=0.995),
            "train": common.demo_train(debug, 700, checkpoint_every=100),
        }
    )


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant."""
    return common.choose_demo(demo, variant)
