"""First stage of the paper's latent diffusion: the VQ-f4 autoencoder, for PKGH_224 and PKGH_336 alike.

Paper: Table 3, "LDM" columns rest on it. Published for natural images at 256 px: rFID .58, PSNR 27.43 dB. Expected:
not measured yet, the data are not public.
Command: diffpath train --config configs/vqgan_f4_pkgh.py --workdir RUN --config.data.train=DATASET
With LPIPS: diffpath convert --from lpips ..., then add --config.autoencoding.lpips=lpips.safetensors. From the
published weights: diffpath convert --from vqgan ..., then add --config.train.init_from=vqgan.safetensors.

Variants; see --dry_run for size and cost on another machine:

  (none), paper   VQ-f4 as published (55.3 M parameters, codebook of 8192 x 3), the discriminator from step 50,000 on,
                  codes unused for 1,000 steps revived; 200,000 steps of 16.
  author_code     as the published config runs: the discriminator from the first step on, no revival, both flips,
                  float32.
  small           half as wide (64 channels, 1024 codes), batches of 8, for one 24 GB GPU.
  debug           two steps of a tiny network, for tests.
"""

import common
from ml_collections import ConfigDict


def paper() -> ConfigDict:
    """VQ-f4 as published, with a kinder start and the 8 symmetries of tissue."""
    return ConfigDict(
        {
            "task": "autoencoding",
            "seed": 0,
            "dtype": "bfloat16",
            "data": common.data(16),
            "network": {
                "kind": "vq_autoencoder",
                "channels": 128,
                "channel_mult": (1, 2, 4),
                "num_res_blocks": 2,
                "latent_channels": 3,
                "codebook_size": 8192,
            },
            "autoencoding": {
                "bottleneck_weight": 1.0,
                "commitment": 0.25,
                "commitment_on": "codes",  # the published code; "latents" is the formula of the text
                "revive_after": 1_000,
                "adversarial_weight": 0.75,
                "adversarial_start": 50_000,
            },
            # 4.5e-6 for each image of a batch of 16.
            "optim": {"learning_rate": 7.2e-5, "b1": 0.5, "b2": 0.9, "ema_decay": 0.0},
            "train": common.train(200_000, keep_every=20_000, keep_best="val_psnr"),
        }
    )


def small() -> ConfigDict:
    """Half as wide, with a smaller codebook."""
    config = paper()
    config.network.update({"channels": 64, "codebook_size": 1024})
    config.data.batch_size = 8
    config.optim.learning_rate = 3.6e-5
    return config


def author_code() -> ConfigDict:
    """The published settings without changes; see docs/DEVIATIONS.md."""
    config = paper()
    config.dtype = "float32"
    config.data.augment = "flips"
    config.autoencoding.update({"revive_after": 0, "adversarial_start": 0})
    return config


def debug() -> ConfigDict:
    """Two steps of a tiny network on any data set."""
    tiny = {"channels": 8, "channel_mult": (1, 1, 1), "num_res_blocks": 1, "groups": 4, "codebook_size": 16}
    config = common.make_debug(paper(), **tiny)
    config.autoencoding.update({"adversarial_start": 1, "discriminator_width": 4, "discriminator_layers": 1})
    config.optim.ema_decay = 0.99
    return config


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return common.choose({"paper": paper, "small": small, "author_code": author_code, "debug": debug}, variant)
