"""Our UNets and noisy classifiers as the state dicts of guided-diffusion (Dhariwal and Nichol 2021)."""

from diffpath_jax.networks.adm import AdmConfig
from diffpath_jax.networks.classifier_adm import NoisyClassifierConfig
from diffpath_jax.networks.conditions import LABEL
from diffpath_jax.networks.config import NetworkConfig
from diffpath_jax.networks.unet_adm import UNetConfig
from diffpath_jax.shapes import Tree
from diffpath_jax.weights.from_adm import adm_names
from diffpath_jax.weights.safetensors_file import Flat
from diffpath_jax.weights.torch_files import spill

# Layers that are convolutions of one pixel there and products of matrices here: axes that they have more.
_CONVOLUTIONS = {"skip_connection": 2, "qkv": 1, "proj_out": 1, "qkv_proj": 1, "c_proj": 1}
# Groups of every norm there.
GROUPS = 32


def to_adm(params: Tree) -> Flat:
    """Returns parameters by guided-diffusion's names, in its layout; the inverse of ``from_adm``."""
    state = spill(params, adm_names(params))
    for name, array in state.items():
        layer, _, leaf = name.rpartition(".")
        axes = _CONVOLUTIONS.get(layer.rpartition(".")[2], 0)
        if axes and leaf == "weight":
            state[name] = array.reshape(*array.shape, *(1,) * axes)
    return state


def why_not_adm(config: NetworkConfig | None) -> str:
    """Returns what a network has that those of ADM have not; empty where it is one of them."""
    if not isinstance(config, UNetConfig | NoisyClassifierConfig):
        return "its network is none of ADM's"
    if config.stem_block != 1:
        return f"its stem moves squares of {config.stem_block} px into channels"
    others = [name for name in config.conditions if name != LABEL.name]
    return f"it is told {', '.join(others)} besides the class" if others else ""


def adm_flags(config: AdmConfig) -> str:
    """Returns the flags of guided-diffusion's scripts that leave no trace in the arrays."""
    heads = f"--num_head_channels {config.head_channels}" if config.head_channels else f"--num_heads {config.num_heads}"
    differs = config.num_heads_upsample if isinstance(config, UNetConfig) and not config.head_channels else 0
    above = f" --num_heads_upsample {differs}" if differs else ""
    attention = ",".join(map(str, config.attention_downsamples))
    blocks = f"--resblock_updown {config.resample == 'block'} --use_scale_shift_norm {config.film}"
    return f"{heads}{above} {blocks} --num_channels {config.channels}; attention at 1/{attention} of the side"
