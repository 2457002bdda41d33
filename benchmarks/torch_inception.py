"""Inception-v3 of FID in PyTorch, norms folded, NHWC in memory: what ours is measured against.

Built from the table of layers that ours is built from, so that parameters go from one to the other by name.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffpath_jax.networks.inception import BLOCKS, INPUT, NUM_FEATURES, NUM_LOGITS, POOL, POOLED, Block, Pool

# name -> input and output channels, side of the kernel, stride, padding.
STEM = {
    "conv2d_1a_3x3": (3, 32, 3, 2, 0),
    "conv2d_2a_3x3": (32, 32, 3, 1, 0),
    "conv2d_2b_3x3": (32, 64, 3, 1, 1),
    "conv2d_3b_1x1": (64, 80, 1, 1, 0),
    "conv2d_4a_3x3": (80, 192, 3, 1, 0),
}


def pool(x: Tensor, kind: Pool) -> Tensor:
    """Mean or maximum over 3x3; padding counts in neither."""
    if kind == "mean":
        return functional.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
    stride, padding = (2, 0) if kind == "max_halved" else (1, 1)
    return functional.max_pool2d(x, 3, stride=stride, padding=padding)


class Mixed(nn.Module):
    """A block of the table."""

    def __init__(self, channels: int, block: Block) -> None:
        super().__init__()
        self.block = block
        self.layers = nn.ModuleDict()
        found = {INPUT: channels, POOL: channels}
        for layer in block.layers:
            padding = tuple(side // 2 for side in layer.kernel) if layer.stride == 1 else 0
            self.layers[layer.name] = nn.Conv2d(
                found[layer.source], layer.channels, layer.kernel, stride=layer.stride, padding=padding
            )
            found[layer.name] = layer.channels
        self.num_outputs = sum(found[name] for name in block.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Apply."""
        found = {INPUT: x, POOL: pool(x, self.block.pool)}
        for layer in self.block.layers:
            found[layer.name] = functional.relu(self.layers[layer.name](found[layer.source]), inplace=True)
        return torch.cat([found[name] for name in self.block.outputs], dim=1)


class Inception(nn.Module):
    """Features of images of 299 px with values from 0 to 255, NCHW."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                name: nn.Conv2d(inputs, outputs, side, stride=stride, padding=padding)
                for name, (inputs, outputs, side, stride, padding) in STEM.items()
            }
        )
        self.blocks = nn.ModuleDict()
        channels = STEM["conv2d_4a_3x3"][1]
        for name, block in BLOCKS.items():
            self.blocks[name] = Mixed(channels, block)
            channels = self.blocks[name].num_outputs
        self.fc = nn.Linear(NUM_FEATURES, NUM_LOGITS)

    def forward(self, x: Tensor) -> Tensor:
        """Features, not logits."""
        x = (x - 128) / 128
        for name, layer in self.stem.items():
            x = functional.relu(layer(x), inplace=True)
            if name in POOLED:
                x = pool(x, "max_halved")
        for block in self.blocks.values():
            x = block(x)
        return x.mean(dim=(2, 3))


def load(flat: Mapping[str, np.ndarray]) -> Inception:
    """The network with our parameters, by our names, ready for inference.

    Raises:
        RuntimeError: names or sizes differ.
    """
    network = Inception()
    taken = {}
    for name, array in flat.items():
        stem, _, kind = name.rpartition(".")
        if kind == "kernel":  # (*space, in, out) -> (out, in, *space)
            array = np.moveaxis(array, (-1, -2), (0, 1))
        taken[f"{stem}.{'weight' if kind == 'kernel' else kind}"] = torch.tensor(np.ascontiguousarray(array))
    network.load_state_dict(taken, strict=True)
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
