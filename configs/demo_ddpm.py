"""Pixel DDPM of the demo: 32 px patches of one slide, a few minutes on two CPU cores.

Paper table: none; it shows that the pipeline works. Cost: about 5 minutes on 2 cores.
Expected: the generated classes are told apart at a glance; the numbers are those of a toy.
Command: diffpath train --config configs/demo_ddpm.py --workdir RUN --config.data.train=DATASET
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
            # One slide has a direction, which its epidermis and its fibres keep; many slides have none (dihedral).
            "data": {**common.data(8 if debug else 16, workers=0), "augment": "hflip", "balanced": True},
            "network": {
                "kind": "unet_adm",
                "channels": 32 if debug else 64,
                "channel_mult": (1, 1),
                "num_res_blocks": 1,
                "attention_downsamples": (),
                "num_heads": 4,
                "groups": 16 if debug else 32,
                "dropout": 0.0,
                "learn_sigma": False,
                "stem_block": 2,
            },
            # Within minutes x0 brings nuclei and fibres, and min-SNR weights make them sharp; v is still grainy by
            # then, and eps coloured noise. The network works on squares of 2 px, for a quarter of the cost; attention
            # does not pay yet.
            "noise": {"schedule": "cosine", "num_steps": 1000},
            "diffusion": {"prediction": "x0", "loss": "min_snr", "label_dropout": 0.1},
            "optim": common.demo_optim(debug, ema_decay=0.995),
            "train": common.demo_train(debug, 1500, checkpoint_every=300),
        }
    )


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant."""
    return common.choose_demo(demo, variant)
