"""Classifier of noisy patches, for classifier guidance of the models of ddpm_pkgh224.py.

Paper table: none; the paper compares samplers without it. ADM's classifier guidance (Dhariwal and Nichol 2021, section
4) with its classifier for 128 px. Expected: not measured yet, the data are not public.
Command: diffpath train --config configs/noisy_classifier_pkgh224.py --workdir RUN --config.data.train=DATASET
Then: diffpath sample --workdir DDPM --classifier RUN --classifier_scale 1 ...
Cost: add --dry_run, and --devices N --peak_tflops P for another machine.

Noise must be that of the model it guides: here, as there, linear from 1e-4 to 2e-2 (`author_code`: to 1e-2).

Variants; memory and hours are those of --dry_run, at 40 % of the speed of a bf16 matrix product (790 TFLOP/s on an
H200, 459 on each of the 4 chips of a TPU v5p-8), not of a finished run:

  (none), paper   42.1 M parameters as published, 30,000 steps of 256 in 2 parts (ADM took 300,000 for ImageNet): 39 GiB
                  at most, 0.83 h on one H200; 0.36 h on a v5p-8 (10 GiB a chip).
  small           half as wide and batches of 64, for one 24 GB GPU: 9.7 GiB at most, 0.27 h at 40 % of 160 TFLOP/s;
                  0.06 h on one H200, 0.03 h on a v5p-8.
  author_code     the noise of the authors' code, for models of that variant; otherwise as published.
  debug           two steps of a tiny network, for tests.
"""

import common
from ml_collections import ConfigDict


def paper() -> ConfigDict:
    """ADM's classifier (its repository: width 128, 2 blocks a level, attention pool), with the symmetries of tissue."""
    return ConfigDict(
        {
            "task": "noisy_classification",
            "seed": 0,
            "dtype": "bfloat16",
            "data": common.data(256),
            "network": {
                "kind": "noisy_classifier",
                "channels": 128,
                "channel_mult": (1, 1, 2, 3, 4),
                "num_res_blocks": 2,
                "attention_downsamples": (4, 8, 16),
                "head_channels": 64,
                "pool_side": 8,  # 128 px; other sizes interpolate its positions
            },
            "noise": common.linear_noise(),
            "classifier": {"label_smoothing": 0.0},
            "optim": {
                "learning_rate": 3e-4,
                "decay": "linear",
                "weight_decay": 0.05,
                "ema_decay": 0.0,
                "accumulate": 2,
            },
            "train": common.train(30_000, keep_best="val_loss"),
        }
    )


def small() -> ConfigDict:
    """Half as wide, for one GPU with 24 GB."""
    config = paper()
    config.network.channels = 64
    config.data.batch_size = 64
    config.optim.accumulate = 1
    return config


def author_code() -> ConfigDict:
    """For models that were trained with the noise of the authors' code."""
    config = paper()
    config.noise.beta_end = 1e-2
    return config


def debug() -> ConfigDict:
    """Two steps of a tiny network on any data set."""
    tiny = {"channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamples": (2,)}
    return common.make_debug(paper(), **tiny, head_channels=16)


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    return common.choose({"paper": paper, "small": small, "author_code": author_code, "debug": debug}, variant)
