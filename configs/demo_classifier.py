"""Classifier of the demo: a small network of ResNet-50's family, for 32 px patches.

Paper table: 5, in small. Cost: about 15 seconds on 2 cores.
Expected: most test patches right, whether trained on real or generated images.
Command: diffpath train --config configs/demo_classifier.py --workdir RUN --config.data.train=DATASET[,DATASET]
Variants: (none) the demo; :debug two steps, for tests.
"""

import common
from ml_collections import ConfigDict


def demo(debug: bool) -> ConfigDict:
    """The demo's classifier, or its ``debug`` variant."""
    return ConfigDict(
        {
            "task": "classification",
            "seed": 0,
            "dtype": "float32",
            "data": common.data(32, workers=0),
            "network": {
                "kind": "resnet",
                "width": 8 if debug else 16,
                "stage_sizes": (1, 1),
                "small_images": True,
            },
            "classifier": {"label_smoothing": 0.1},
            "optim": {
                "learning_rate": 1e-3,
                "decay": "cosine",
                "warmup_steps": 0 if debug else 20,
                "weight_decay": 0.05,
                "ema_decay": 0.0,
            },
            "train": common.demo_train(debug, 100, checkpoint_every=50, eval_every=50),
        }
    )


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant."""
    return common.choose_demo(demo, variant)
