"""Published networks in PyTorch, as functions of a checkpoint's arrays by their names; written from the architectures.

VQGAN and KL: Esser et al. 2021 and Rombach et al. 2022; Gumbel: the same with the assignment of Jang et al. 2017; the
UNet: Dhariwal and Nichol 2021. Double precision.
"""

import math

import torch
import torch.nn.functional as F


class Published:
    """A network by the names of its arrays."""

    def __init__(self, state):
        self.state = {name: torch.from_numpy(array.copy()).double() for name, array in state.items()}

    def has(self, name):
        return any(key.startswith(f"{name}.") for key in self.state)

    def conv(self, name, x, **options):
        weight = self.state[f"{name}.weight"]
        weight = weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))
        operation = F.conv1d if x.ndim == 3 else F.conv2d
        padding = options.pop("padding", weight.shape[-1] // 2)
        return operation(x, weight, self.state[f"{name}.bias"], padding=padding, **options)

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"])

    def norm(self, name, x, *, groups=32, eps=1e-6):
        return F.group_norm(x, groups, self.state[f"{name}.weight"], self.state[f"{name}.bias"], eps)


class FirstStage(Published):
    """An autoencoder of taming-transformers or latent diffusion."""

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", F.silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", F.silu(self.norm(f"{name}.norm2", h)))
        return (self.conv(f"{name}.nin_shortcut", x) if self.has(f"{name}.nin_shortcut") else x) + h

    def attention(self, name, x):
        normed = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{part}", normed).flatten(2) for part in "qkv")
        weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(x.shape[1]), dim=-1)
        return x + self.conv(f"{name}.proj_out", (v @ weights.transpose(1, 2)).reshape(x.shape))

    def level(self, name, h):
        number = 0
        while self.has(f"{name}.block.{number}"):
            h = self.block(f"{name}.block.{number}", h)
            if self.has(f"{name}.attn.{number}"):
                h = self.attention(f"{name}.attn.{number}", h)
            number += 1
        return h

    def middle(self, half, h):
        return self.block(
            f"{half}.mid.block_2", self.attention(f"{half}.mid.attn_1", self.block(f"{half}.mid.block_1", h))
        )

    def encode(self, x):
        h, number = self.conv("encoder.conv_in", x), 0
        while self.has(f"encoder.down.{number}"):
            h = self.level(f"encoder.down.{number}", h)
            if self.has(f"encoder.down.{number}.downsample"):
                h = self.conv(f"encoder.down.{number}.downsample.conv", F.pad(h, (0, 1, 0, 1)), stride=2, padding=0)
            number += 1
        h = self.middle("encoder", h)
        h = self.conv("encoder.conv_out", F.silu(self.norm("encoder.norm_out", h)))
        return self.conv("quant_conv", h)

    def codes(self, z):
        """Of a Gumbel codebook the likeliest, of another the nearest."""
        if self.has("quantize.proj"):
            indices = self.conv("quantize.proj", z).argmax(dim=1)
            return F.embedding(indices, self.state["quantize.embed.weight"]).permute(0, 3, 1, 2)
        book = self.state["quantize.embedding.weight"]
        distances = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, z.shape[1]), book)
        return book[distances.argmin(dim=1)].reshape(z.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)

    def decode(self, z):
        h = self.middle("decoder", self.conv("decoder.conv_in", self.conv("post_quant_conv", z)))
        number = 0
        while self.has(f"decoder.up.{number + 1}"):
            number += 1
        for level in range(number, -1, -1):
            h = self.level(f"decoder.up.{level}", h)
            if self.has(f"decoder.up.{level}.upsample"):
                h = self.conv(f"decoder.up.{level}.upsample.conv", F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return self.conv("decoder.conv_out", F.silu(self.norm("decoder.norm_out", h)))


class GuidedUNet(Published):
    """A UNet of guided-diffusion with ``resblock_updown False``; other heads on the way up than elsewhere."""

    def __init__(self, state, *, num_heads, num_heads_upsample, new_order):
        super().__init__(state)
        self.num_heads, self.num_heads_upsample, self.new_order = num_heads, num_heads_upsample, new_order

    def block(self, name, x, embedding):
        h = self.conv(f"{name}.in_layers.2", F.silu(self.norm(f"{name}.in_layers.0", x, eps=1e-5)))
        scale, shift = self.linear(f"{name}.emb_layers.1", F.silu(embedding))[..., None, None].chunk(2, dim=1)
        h = self.norm(f"{name}.out_layers.0", h, eps=1e-5) * (1 + scale) + shift
        h = self.conv(f"{name}.out_layers.3", F.silu(h))
        return (self.conv(f"{name}.skip_connection", x) if self.has(f"{name}.skip_connection") else x) + h

    def attention(self, name, x, heads):
        batch, channels = x.shape[:2]
        qkv = self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x.flatten(2), eps=1e-5))
        width = channels // heads
        if self.new_order:
            q, k, v = (part.reshape(batch * heads, width, -1) for part in qkv.chunk(3, dim=1))
        else:
            q, k, v = qkv.reshape(batch * heads, 3 * width, -1).split(width, dim=1)
        weights = torch.softmax(torch.einsum("bct,bcs->bts", q, k) / math.sqrt(width), dim=-1)
        h = torch.einsum("bts,bcs->bct", weights, v).reshape(batch, channels, -1)
        return x + self.conv(f"{name}.proj_out", h).reshape(x.shape)

    def sequence(self, name, x, embedding, heads):
        number = 0
        while self.has(f"{name}.{number}"):
            part = f"{name}.{number}"
            if self.has(f"{part}.in_layers"):
                x = self.block(part, x, embedding)
            elif self.has(f"{part}.qkv"):
                x = self.attention(part, x, heads)
            elif self.has(f"{part}.op"):
                x = self.conv(f"{part}.op", x, stride=2)
            elif self.has(f"{part}.conv"):
                x = self.conv(f"{part}.conv", F.interpolate(x, scale_factor=2.0, mode="nearest"))
            else:
                x = self.conv(part, x)
            number += 1
        return x

    def __call__(self, x, t, labels):
        half = self.state["time_embed.0.weight"].shape[1] // 2
        angles = t[:, None].double() * torch.exp(-math.log(10000) * torch.arange(half).double() / half)
        embedding = torch.cat([torch.cos(angles), torch.sin(angles)], dim=-1)
        embedding = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", embedding)))
        embedding = embedding + F.embedding(labels, self.state["label_emb.weight"])
        skips, number = [], 0
        while self.has(f"input_blocks.{number}"):
            x = self.sequence(f"input_blocks.{number}", x, embedding, self.num_heads)
            skips.append(x)
            number += 1
        x = self.sequence("middle_block", x, embedding, self.num_heads)
        for number in range(len(skips)):
            joined = torch.cat([x, skips.pop()], dim=1)
            x = self.sequence(f"output_blocks.{number}", joined, embedding, self.num_heads_upsample)
        return self.conv("out.2", F.silu(self.norm("out.0", x, eps=1e-5)))
