"""Latent diffusion of the paper on PKGH_224: VQ-f4 latents of 128 px patches of fields of 224 um, 5 classes.

Paper: Table 3, "LDM" columns (FID / KID): DDPM sampler 24.43 / .0185, DDIM 25.56 / .0161. Expected: not measured yet,
the data are not public.
Command: diffpath train --config configs/ldm_pkgh224.py --workdir RUN --config.data.train=LATENTS \
    --config.codec.first_stage=VQGAN
where VQGAN is a run of configs/vqgan_f4_pkgh.py or a file of `diffpath convert --from vqgan`, and LATENTS were written
by `diffpath encode --data DATASET --first_stage VQGAN --out LATENTS`. With --config.data.train=DATASET images are
encoded in every step instead, which costs more than the rest of the step. The paper starts from published weights:
diffpath convert --from ldm ..., then add --config.train.init_from=ldm.safetensors.

Variants; see --dry_run for size and cost on another machine:

  (none), paper   the UNet of the authors' kgh.yaml (306.1 M parameters), scaled latents, a null class trained by label
                  dropout, an average of the parameters; 100,000 steps of 64.
  author_code     what kgh.yaml runs: no label dropout, so no null class; no average; latents as they are (scale 1);
                  both flips; a learning rate of 2.5e-5 for each image of a batch of 32, which is 8e-4; float32. That it
                  trains and validates on the test split is not repeated.
  best            not the paper's: the small network with the parts of ddpm_pkgh224:best that latents can have (x0 with
                  min-SNR weights, classes in balance, Muon decaying to zero, averages of any length), none of them
                  measured in latents.
  small           96 base channels (77 M), for one 24 GB GPU.
  debug           two steps of a tiny network, for tests.
"""

import common
from ml_collections import ConfigDict


def paper() -> ConfigDict:
    """The authors' network, with what their text says and their config leaves out."""
    return ConfigDict(
        {
            "task": "diffusion",
            "seed": 0,
            "dtype": "bfloat16",
            "data": common.data(64),
            "network": {
                "kind": "unet_ldm",
                "channels": 192,
                "channel_mult": (1, 2, 3, 4),
                "num_res_blocks": 2,
                "attention_downsamples": (2, 4, 8),
                "num_heads": 1,
                "context_width": 512,
            },
            "codec": {"first_stage": "", "scale": 0.0},
            "noise": {"schedule": "scaled_linear", "num_steps": 1000, "beta_start": 0.0015, "beta_end": 0.0195},
            "diffusion": {"prediction": "eps", "loss": "simple", "label_dropout": 0.1},
            "optim": {"learning_rate": 6.4e-5, "ema_decay": 0.9999},
            "train": common.train(100_000, keep_every=20_000, keep_best="val_loss", fsdp=1),
        }
    )


def small() -> ConfigDict:
    """Half as wide."""
    config = paper()
    config.network.channels = 96
    return config


def best() -> ConfigDict:
    """Not the paper's: see the variant of this name in ddpm_pkgh224.py."""
    return common.best(small())


def author_code() -> ConfigDict:
    """The authors' kgh.yaml, with its slips; see docs/DEVIATIONS.md."""
    config = paper()
    config.dtype = "float32"
    config.data.update({"batch_size": 32, "augment": "flips"})
    config.codec.scale = 1.0
    config.diffusion.label_dropout = 0.0
    config.optim.update({"learning_rate": 8e-4, "weight_decay": 0.01, "ema_decay": 0.0})
    return config


def debug() -> ConfigDict:
    """Two steps of a tiny network on any data set."""
    tiny = {"channels": 16, "channel_mult": (1, 2), "num_res_blocks": 1, "attention_downsamples": (2,)}
    return common.make_debug(paper(), **tiny, context_width=8, groups=8)


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    variants = {"paper": paper, "small": small, "best": best, "author_code": author_code, "debug": debug}
    return common.choose(variants, variant)
