"""ResNet-50 of the paper on patches of PKGH_224 or PKGH_336, 5 classes: what synthetic patches are worth.

Paper: Table 5, accuracy in %: PKGH_224 real 89.95, generated 88.62, both 90.75; PKGH_336 94.06, 92.44, 90.76. Who was
held out is not said there; on held-out slides the same laboratory reports 80.5 to 81.9. Expected: not measured yet, the
data are not public.
Command: diffpath train --config configs/resnet50_pkgh.py --workdir RUN --config.data.train=REAL,GENERATED
    --config.data.mixture="(1.0, 0.5)" --config.train.init_from=RESNET50 --config.seed=0
where RESNET50 is made by: diffpath convert --from resnet50 --file FILE --out RESNET50.safetensors, of torchvision's
IMAGENET1K_V1 or V2, or timm's resnet50. Without init_from it starts afresh.

The arms of a study differ in data.mixture alone, in units of the real images class by class: "(1.0, 0.0)" real ones,
"(0.0, 1.0)" as many generated ones, "(1.0, R)" both. Every arm takes the same number of steps, is watched on the
validation split of the first data set, and is tested at its best checkpoint; train.patience=N ends a run early.

Variants; memory and hours are those of --dry_run, at 40 % of the speed of a bf16 matrix product (790 TFLOP/s on an
H200, 459 on each of the 4 chips of a TPU v5p-8), not of a finished run, which has to read its images as well:

  (none), paper   23.5 M parameters, 10,000 steps of 128 patches of 128 px: 5.8 GiB at most, 0.01 h on one H200;
                  0.004 h on a v5p-8 (1.8 GiB a chip).
  small           batches of 32 and a quarter of the learning rate, for a small GPU: 1.8 GiB at most, 0.01 h at 40 % of
                  160 TFLOP/s; 0.003 h on one H200, 0.001 h on a v5p-8.
  debug           two steps of a tiny network, for tests.
"""

from ml_collections import ConfigDict


def paper() -> ConfigDict:
    """ResNet-50 (He et al. 2016), stride in the 3x3 convolution, as torchvision's and timm's weights have it."""
    return ConfigDict(
        {
            "task": "classification",
            "seed": 0,
            "dtype": "bfloat16",
            "data": {"train": "", "batch_size": 128, "augment": "dihedral", "workers": 4},
            "network": {"kind": "resnet", "width": 64, "stage_sizes": (3, 4, 6, 3), "standardise": True},
            "classifier": {"label_smoothing": 0.1, "balance": "weights", "stain_jitter": 0.05},
            "optim": {
                "learning_rate": 2e-4,
                "decay": "cosine",
                "warmup_steps": 500,
                "weight_decay": 0.05,
                "ema_decay": 0.0,
                "accumulate": 1,  # parts of a batch would be normalised each by itself
            },
            "train": {
                "num_steps": 10_000,
                "log_every": 100,
                "checkpoint_every": 500,
                "eval_every": 500,
                "keep_best": "val_accuracy",
                "patience": 0,
            },
        }
    )


def small() -> ConfigDict:
    """Smaller batches, for one small GPU."""
    config = paper()
    config.data.batch_size = 32
    config.optim.learning_rate = 5e-5
    return config


def debug() -> ConfigDict:
    """Two steps of a tiny network on any data set."""
    config = paper()
    config.dtype = "float32"
    config.network.update({"width": 4, "stage_sizes": (1, 1), "small_images": True})
    config.data.update({"batch_size": 8, "workers": 0})
    config.optim.warmup_steps = 0
    config.train.update({"num_steps": 2, "log_every": 1, "checkpoint_every": 1, "eval_every": 1})
    return config


def get_config(variant: str = "paper") -> ConfigDict:
    """The config of a variant."""
    variants = {"paper": paper, "small": small, "debug": debug}
    if variant not in variants:
        raise ValueError(f"unknown variant {variant!r}; known are {', '.join(variants)}")
    return variants[variant]()
