"""Pixel DDPM of the paper on PKGH_224: 128 px patches of fields of 224 um (`prep --preset pkgh224_um`), 5 classes.

Paper: Table 3, "DDPM" columns (FID / KID): DDPM sampler 19.08 / .0134, eps scaling 1.014 39.88 / .0338, DDIM
22.66 / .0154; Table 4, patch-size prompting with the same model. Expected: not measured yet, the data are not public.
Command: diffpath train --config configs/ddpm_pkgh224.py --workdir RUN --config.data.train=DATASET
Size and cost first: add --dry_run, and --devices N --peak_tflops P for another machine.

Variants; memory and hours are those of --dry_run, at 40 % of the speed of a bf16 matrix product (790 TFLOP/s on an
H200, 459 on each of the 4 chips of a TPU v5p-8), not of a finished run:

  (none), paper   ADM-128 as published (420.5 M parameters, learned variance, hybrid loss), 100,000 steps of 256 in
                  8 parts: 65 GiB at most, 40.5 h on one H200; 17.4 h on a v5p-8 (23 GiB a chip).
  small           the same with 128 base channels (105 M) and batches of 64 in 4 parts, for one 24 GB GPU: 17.3 GiB at
                  most, 12.8 h at 40 % of 160 TFLOP/s; 2.6 h on one H200, 1.1 h on a v5p-8.
  best            not the paper's: for images that are good rather than comparable. x0 with min-SNR weights, a cosine
                  schedule shifted for 128 px, classes in balance, Muon decaying to zero, averages of any length
                  (diffpath sample --ema_length), a network of half the resolution inside. All but the shift and the
                  averages were measured at toy size (docs/SPEED.md, ten minutes of a core); none at this one.
                  101.7 M parameters, 100,000 steps of 64: 15.6 GiB at most, 6.3 h at 40 % of 160 TFLOP/s; 1.3 h on one
                  H200.
  author_code     what the authors' code runs instead: its own UNet (58.7 M), beta_end 1e-2, labels dropped by whole
                  batches of 8, left-right flips, no average of the parameters, float32; 4.6 GiB. 50 epochs: set
                  train.num_steps to 50 x patches / 8 (the number of patches is not published; 300,000 steps are
                  48,000 patches).
  debug           two steps of a tiny network, for tests.
"""

import common
from ml_collections import ConfigDict

ADM_128 = {
    "kind": "unet_adm",
    "channels": 256,
    "channel_mult": (1, 1, 2, 3, 4),
    "num_res_blocks": 2,
    "attention_downsamples": (4, 8, 16),
    "num_heads": 4,
    "learn_sigma": True,
}
# At a quarter of the side, where attention over 128 px takes megabytes and not gigabytes.
DEBUG = {"channels": 32, "channel_mult": (1, 1, 2), "num_res_blocks": 1, "attention_downsamples": (4,)}


def paper() -> ConfigDict:
    """ADM as published (Dhariwal and Nichol 2021, table 11), with the 8 symmetries of tissue."""
    return ConfigDict(
        {
            "task": "diffusion",
            "seed": 0,
            "dtype": "bfloat16",  # of activations; parameters, norms, softmax, losses and the average are float32
            "data": common.data(256),
            "network": dict(ADM_128),
            "noise": common.linear_noise(),
            "diffusion": {
                "prediction": "eps",
                "loss": "hybrid",
                "label_dropout": 0.1,  # image by image: classifier-free guidance needs a trained null class
            },
            "optim": {"learning_rate": 1e-4, "weight_decay": 0.0, "ema_decay": 0.9999, "accumulate": 8},
            "train": common.train(100_000, keep_every=20_000, keep_best="val_loss", fsdp=1),
        }
    )


def small() -> ConfigDict:
    """Half as wide, for one GPU with 24 GB."""
    config = paper()
    config.network.channels = 128
    config.data.batch_size = 64
    config.optim.accumulate = 4
    return config


def best() -> ConfigDict:
    """Not the paper's: the parts that earned their place, and what the literature adds at this size."""
    config = common.best(small())
    # Squares of 2 px become channels, and the top level of the paper's network, where half of its work is, goes.
    config.network.update({"stem_block": 2, "channel_mult": (1, 2, 3, 4), "attention_downsamples": (2, 4, 8)})
    config.network.learn_sigma = False
    # As much signal at each step as 64 px have (Hoogeboom et al. 2023, simple diffusion).
    config.noise = {"schedule": "cosine", "num_steps": 1000, "snr_factor": 0.5}
    config.optim.accumulate = 1
    return config


def author_code() -> ConfigDict:
    """The authors' published code, with its departures from their text; see docs/DEVIATIONS.md."""
    config = paper()
    config.dtype = "float32"
    config.network = {"kind": "unet_authors"}
    config.data.update({"batch_size": 8, "augment": "hflip"})
    config.noise.beta_end = 1e-2
    config.diffusion.update({"loss": "simple", "label_dropout_group": 8})
    config.optim.update({"learning_rate": 2e-5, "decay": "cosine", "clip_norm": 1.0, "ema_decay": 0.0, "accumulate": 1})
    config.train.num_steps = 300_000
    return config


def debug() -> ConfigDict:
    """Two steps of a tiny network on any data set."""
    return common.make_debug(paper(), **DEBUG)


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    variants = {"paper": paper, "small": small, "best": best, "author_code": author_code, "debug": debug}
    return common.choose(variants, variant)
