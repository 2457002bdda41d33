"""The UNet of ADM (Dhariwal and Nichol 2021, "Diffusion models beat GANs on image synthesis", section 3)."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key
from pydantic import Field

from diffpath_jax.networks import adm, layers
from diffpath_jax.networks.conditions import COLUMNS, CONDITIONS, FEATURES, LABEL, ConditionKind, unknown_condition
from diffpath_jax.networks.config import Conflict, NetworkKind
from diffpath_jax.shapes import Conditions


@dataclass(frozen=True)
class UNetConfig(adm.AdmConfig):
    """Shape of the network; the defaults are the published one for 128 px.

    Attributes:
        conditions: what it is told of an image, by name; their embeddings are added to the time's.
        feature_width: numbers of the features of an image, where ``features`` are among the conditions; else 0.
        columns: how many values each column of a table has, 0 for a number, where ``columns`` are among the conditions.
        learn_sigma: give as many output channels again for the variance (learned range).
        num_heads_upsample: heads of each attention on the way up, where ``head_channels`` is 0; 0 for ``num_heads``.
    """

    conditions: Annotated[tuple[str, ...], Field(max_length=16)] = (LABEL.name,)
    feature_width: Annotated[int, Field(ge=0, le=2**16)] = 0
    columns: Annotated[tuple[Annotated[int, Field(ge=0, le=2**16)], ...], Field(max_length=64)] = ()
    learn_sigma: bool = False
    num_heads_upsample: Annotated[int, Field(ge=0, le=2**16)] = 0

    @property
    def on_the_way_up(self) -> "UNetConfig":
        """The config of the decoder's blocks."""
        return dataclasses.replace(self, num_heads=self.num_heads_upsample or self.num_heads, num_heads_upsample=0)

    @property
    def condition_width(self) -> int:
        """Width of the embedding of a condition."""
        return self.embedding

    def conflict(self) -> Conflict | None:
        """That of every network of ADM, on the way up too; and conditions must be known."""
        conflict = super().conflict() or unknown_condition(self.conditions) or self._conflict_of_what_is_told()
        if conflict or not self.num_heads_upsample or self.head_channels:
            return conflict
        above = self.on_the_way_up.conflict()
        return ("num_heads_upsample", above[1]) if above else None

    def _conflict_of_what_is_told(self) -> Conflict | None:
        for kind, key in ((FEATURES, "feature_width"), (COLUMNS, "columns")):
            told, value = kind.name in self.conditions, getattr(self, key)
            if told != bool(value):
                return key, f"{value}, but network.conditions has {'' if told else 'no '}{kind.name!r}"
        return None


class UNet(nnx.Module):
    """Class-conditional noise predictor; fully convolutional, so any image side divisible by the stride works."""

    def __init__(self, config: UNetConfig, *, dtype: DTypeLike, rngs: nnx.Rngs) -> None:
        self.config = config
        self.time = adm.TimeEmbedding(config.channels, config.embedding, rngs=rngs)
        for kind in self._kinds():
            setattr(self, kind.attribute, nnx.data(kind.make(config, rngs=rngs)))
        self.encoder = adm.Encoder(config, dtype=dtype, rngs=rngs)
        skips, width = list(self.encoder.skip_widths), self.encoder.width
        decoder: list[nnx.List] = []
        above = config.on_the_way_up
        for level, out_width in reversed(list(enumerate(config.widths))):
            for number in range(config.num_res_blocks + 1):
                attend = 2**level in config.attention_downsamples
                inputs = width + skips.pop()
                stages = [adm.Stage(above, inputs, out_width, attend=attend, dtype=dtype, rngs=rngs)]
                width = out_width
                if level and number == config.num_res_blocks:
                    stages.append(adm.Stage(above, width, width, resampling="up", dtype=dtype, rngs=rngs))
                decoder.append(nnx.List(stages))
        self.decoder = nnx.List(decoder)
        self.out_norm = layers.GroupNorm(width, groups=config.groups)
        out_channels = config.stem_channels * (2 if config.learn_sigma else 1)
        # In float32 like the embedding: rounding here would be noise in every sampling step.
        self.out_conv = layers.conv3x3(width, out_channels, zero_init=True, dtype=jnp.float32, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Int[Array, "b"],
        conditions: Conditions,
        key: Key[Array, ""] | None = None,
    ) -> Float[Array, "b h w out"]:
        """Predict from noisy images.

        Args:
            x: noisy images.
            t: timestep of the unrespaced schedule.
            conditions: by name, those of :attr:`UNetConfig.conditions`; null values where one is not given.
            key: draws the dropout masks; none means evaluation.

        Returns:
            The prediction in as many channels as ``x`` has; with ``learn_sigma`` the variance in as many more.

        Raises:
            ValueError: height or width is not a multiple of :attr:`AdmConfig.stride`.
        """
        embedding, context = self._condition(self.time(t), self._embed(conditions))
        in_decoder = sum(len(stages) for stages in self.decoder)
        keys = adm.dropout_keys(key, self.encoder.num_keys + in_decoder)
        h, skips = self.encoder(x, embedding, keys[in_decoder:], context)
        keys = keys[:in_decoder]
        for stages in self.decoder:
            first, *others = stages
            h = first(h, embedding, keys.pop(), context, skip=(skips.pop(),))
            for stage in others:
                h = stage(h, embedding, keys.pop(), context)
        out = self.out_conv(self.out_norm(h, silu=True, dtype=jnp.float32))
        parts = jnp.split(out, 2, axis=-1) if self.config.learn_sigma else [out]
        return jnp.concatenate([layers.depth_to_space(part, self.config.stem_block) for part in parts], axis=-1)

    def _kinds(self) -> list[ConditionKind]:
        return [CONDITIONS[name] for name in self.config.conditions]

    def _embed(self, conditions: Conditions) -> list[Float[Array, "b d"]]:
        """The embedding of each condition, in their order; an unconditional network has none of classes."""
        embedders = {kind.name: getattr(self, kind.attribute) for kind in self._kinds()}
        return [embedder(conditions[name]) for name, embedder in embedders.items() if embedder is not None]

    def _condition(
        self, time: Float[Array, "b e"], embedded: list[Float[Array, "b d"]]
    ) -> tuple[Float[Array, "b e"], adm.Context | None]:
        """Returns the condition of residual blocks and that of attention: the sum of all embeddings, and none."""
        return sum(embedded, start=time), None


KIND = NetworkKind("unet_adm", UNetConfig, UNet, "diffusion")
