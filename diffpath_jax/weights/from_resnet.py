"""ResNet-50 from torchvision (both versions of its weights) and from timm, which gives its layers the same names."""

import jax.numpy as jnp

from diffpath_jax.networks.pure import purify
from diffpath_jax.networks.resnet import ResNet, ResNetConfig
from diffpath_jax.weights import torch_files
from diffpath_jax.weights.safetensors_file import Flat

KIND = "resnet"
# A counter in each norm, which nothing reads; what names begin with after training on several devices (DataParallel).
COUNTER, PARALLEL = ".num_batches_tracked", "module."
# Ours -> the published name, of the convolution and of its norm.
BRANCHES = {
    "reduce": ("conv1", "bn1"),
    "spatial": ("conv2", "bn2"),
    "expand": ("conv3", "bn3"),
    "skip": ("downsample.0", "downsample.1"),
}


def from_resnet(state: Flat, *, where: str) -> torch_files.Converted:
    """The network with its running statistics, for as many classes as the file has.

    Raises:
        DiffpathError: names or shapes are others, as those of a variant (resnet50d), or a number is not finite (exit
            code 5).
    """
    arrays = {name.removeprefix(PARALLEL): a for name, a in state.items() if not name.endswith(COUNTER)}
    with torch_files.expecting(
        "ResNet-50", state, where=where, fix="give a resnet50 of torchvision or timm, its head included"
    ):
        config = ResNetConfig(num_classes=len(arrays["fc.bias"]), standardise=True)
        network = purify(lambda rngs: ResNet(config, dtype=jnp.float32, rngs=rngs))
        params, model_state = network.shapes
        both = {"params": params, "state": model_state}
        names = {(group, *path): name for group in both for path, name in resnet_names(config).items()}
        filled = torch_files.fill(both, names, arrays)
    return torch_files.Converted(KIND, config, filled["params"], model_state=filled["state"])


def resnet_names(config: ResNetConfig) -> dict[torch_files.Path, str]:
    """Path of each layer of ours -> its published name; blocks are numbered through here, stage by stage there."""
    names: dict[torch_files.Path, str] = {("stem", "conv"): "conv1", ("stem", "norm"): "bn1", ("head",): "fc"}
    places = [(stage, block) for stage, size in enumerate(config.stage_sizes, start=1) for block in range(size)]
    for number, (stage, block) in enumerate(places):
        for ours, (conv, norm) in BRANCHES.items():
            for layer, theirs in (("conv", conv), ("norm", norm)):
                names["blocks", number, ours, layer] = f"layer{stage}.{block}.{theirs}"
    return names
