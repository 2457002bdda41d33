"""A trained autoencoder whose latents another model works in: its config, its parameters, and the scale of latents."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jax.typing import DTypeLike

from diffpath_jax.config.network import network_section, read_network
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.networks.autoencoder import AutoencoderConfig, VQConfig
from diffpath_jax.networks.codecs import LatentCodec
from diffpath_jax.networks.kinds import make_network
from diffpath_jax.shapes import Tree


@dataclass(frozen=True)
class FirstStage:
    """An autoencoder, as a run and a data set of latents describe it, and its parameters where they are at hand.

    Attributes:
        network: its config.
        scale: factor of its latents; 0 where it is not known yet.
        digest: SHA-256 of its parameters.
        params: its parameters, on the host; empty where it is only described.
    """

    network: AutoencoderConfig
    scale: float
    digest: str
    params: Tree = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], *, where: str) -> "FirstStage":
        """Reads the output of :meth:`as_json`.

        Raises:
            DiffpathError: its network is no autoencoder, or a number does not fit.
            KeyError: something is missing.
        """
        network = read_autoencoder(content["network"], where=where)
        return cls(network, scale=float(content["scale"]), digest=str(content["digest"]))

    def as_json(self) -> dict[str, Any]:
        """Returns its entry in a run and in a data set of latents: everything but the parameters."""
        return {"network": network_section(self.network), "scale": self.scale, "digest": self.digest}

    def codec(self, *, dtype: DTypeLike) -> LatentCodec:
        """Its functions; where the scale is not known, those of latents as they are."""
        return LatentCodec(
            network=make_network(self.network, dtype=dtype),
            posterior=self.network.posterior,
            factor=self.network.factor,
            channels=self.network.latent_channels,
            scale=self.scale or 1.0,
        )


def read_autoencoder(section: object, *, where: str) -> AutoencoderConfig:
    """The config of the autoencoder that a section ``network`` describes.

    Raises:
        DiffpathError: it describes something else, or a number does not fit.
    """
    config = read_network(section, task="autoencoding", where=where)
    if not isinstance(config, AutoencoderConfig):
        fix = "its config must be an AutoencoderConfig"
        raise DiffpathError("key 'network.kind'", where=where, why="no autoencoder with latents", fix=fix)
    return config


def published_first_stage() -> FirstStage:
    """VQ-f4 as published, without its parameters: what a dry run assumes where no first stage is named."""
    return FirstStage(VQConfig(), scale=1.0, digest="")
