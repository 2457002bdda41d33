"""Every key of every section, and of every kind of network: what is out of range is said in one line."""

import dataclasses
import itertools
import math
import random
import typing

import jax
import jax.numpy as jnp
import pytest

from diffpath_jax import cli
from diffpath_jax.config import checks, size_checks
from diffpath_jax.config.files import convert
from diffpath_jax.config.sections import SamplerConfig
from diffpath_jax.config.tasks import make_task
from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.networks.kinds import KINDS
from diffpath_jax.networks.patchgan import PatchDiscriminator, PatchGanConfig, smallest_side
from diffpath_jax.networks.pure import purify
from diffpath_jax.training.tasks.task import NETWORK
from tests.conftest import TINY_AUTOENCODER, TINY_CLASSIFIER, TINY_DENOISER, TINY_RESNET

TINY = {kind["task"]: kind for kind in (TINY_DENOISER, TINY_CLASSIFIER, TINY_AUTOENCODER, TINY_RESNET)}
SECTIONS = {
    "data": {"train": "", "batch_size": 8, "augment": "none", "workers": 0},
    "optim": {},
    "train": {"num_steps": 10, "log_every": 1, "checkpoint_every": 1},
    "noise": {"schedule": "cosine"},
    "diffusion": {"prediction": "v"},
    "autoencoding": {},
    "classifier": {},
    "codec": {},
}


def content(task="diffusion", **other):
    """A config that is right."""
    used = {name: dict(value) for name, value in SECTIONS.items() if name != "codec"}
    return {"seed": 0, "dtype": "float32", **used, **TINY[task], **other}


def bounds(hint):
    """Lowest and highest value of a number, as (value, whether it belongs to them); of a tuple, its lengths too."""
    found = {}
    for constraint in itertools.chain(*(getattr(part, "metadata", ()) for part in hint.__metadata__)):
        for name in ("gt", "ge", "lt", "le", "min_length", "max_length"):
            if hasattr(constraint, name):
                found[name] = getattr(constraint, name)
    return found


def bad_numbers(kind, limits):
    """What a key of this range must not be."""
    assert {"gt", "ge"} & set(limits) and {"lt", "le"} & set(limits), "a number without a range"
    lowest, highest = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    step = 1 if kind is int else 1e-9
    below = lowest - step if "ge" in limits else lowest
    above = highest + max(step, abs(highest) * 1e-9 if kind is float else 0) if "le" in limits else highest
    fractions = [1.5] if kind is int else []
    return [below, above, -1e30, 1e30, math.nan, math.inf, -math.inf, "word", None, *fractions]


def bad_values(hint):
    """What a key of this type must not be."""
    kind, limits = (hint.__origin__, bounds(hint)) if typing.get_origin(hint) is typing.Annotated else (hint, {})
    if kind in (int, float):
        return bad_numbers(kind, limits)
    if typing.get_origin(kind) is typing.Union:
        first, *others = (bad_values(part) for part in typing.get_args(kind))
        return [value for value in first if all(value in other for other in others)]
    if typing.get_origin(kind) is tuple:
        entries = [(value,) for value in bad_values(typing.get_args(kind)[0])]
        too_long = [(1,) * (limits["max_length"] + 1)] if "max_length" in limits else []
        return [*entries, *too_long, *([()] if limits.get("min_length") else []), "word", 3]
    # A name, one of a list; or a path.
    return [3, None] if hint is str else ["word", 3, None]


def keys_of(section, left_out=()):
    hints = typing.get_type_hints(section, include_extras=True)
    names = [field.name for field in dataclasses.fields(section) if field.name not in left_out]
    return [(name, value) for name in names for value in bad_values(hints[name])]


IN_SECTIONS = [(name, *each) for name, section in checks.SECTIONS.items() for each in keys_of(section)]
IN_NETWORKS = [(kind, *each) for kind, row in KINDS.items() for each in keys_of(row.config, row.config.FROM_DATA)]


def refusal(make):
    """The one line that is said."""
    with pytest.raises(DiffpathError) as caught:
        make()
    assert caught.value.code == ExitCode.BAD_INPUT
    line = str(caught.value)
    assert "\n" not in line and "; fix: " in line
    return line


def test_there_are_hundreds_of_them():
    assert len(IN_SECTIONS) > 200 and len(IN_NETWORKS) > 300
    # What the tests change is right before they do.
    for task in TINY:
        checks.run_config(content(task), where="test")


@pytest.mark.parametrize("section", checks.SECTIONS)
def test_sections(section):
    for key, value in (each[1:] for each in IN_SECTIONS if each[0] == section):
        wrong = content(**{section: {**SECTIONS[section], key: value}})
        line = refusal(lambda wrong=wrong: checks.run_config(wrong, where="test"))
        assert line.startswith(f"key '{key}") and f"section '{section}' of test" in line, (key, value, line)


@pytest.mark.parametrize("kind", KINDS)
def test_networks(kind):
    task = KINDS[kind].task
    for key, value in (each[1:] for each in IN_NETWORKS if each[0] == kind):
        wrong = content(task, network={"kind": kind, key: value})
        line = refusal(lambda wrong=wrong: checks.run_config(wrong, where="test"))
        assert line.startswith(f"key '{key}") and "section 'network' of test" in line, (key, value, line)


def test_samplers():
    for key, value in keys_of(SamplerConfig):
        line = refusal(lambda key=key, value=value: convert(SamplerConfig, {key: value}, where="test"))
        assert line.startswith(f"key '{key}'"), (key, value, line)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5, math.nan, math.inf, "word", None])
def test_seeds(seed):
    assert refusal(lambda: checks.run_config(content(seed=seed), where="test")).startswith("key 'seed'")


@pytest.mark.parametrize("task", [None, 3, ["diffusion"], {}, "word"])
def test_tasks(task):
    assert refusal(lambda: checks.run_config(content() | {"task": task}, where="test")).startswith("key 'task'")


@pytest.mark.parametrize("network", [None, 3, "unet_adm", [], {}, {"kind": None}, {"kind": ["unet_adm"]}, {"kind": 3}])
def test_networks_that_are_none(network):
    assert "network" in refusal(lambda: checks.run_config(content(network=network), where="test"))


@pytest.mark.parametrize("section", checks.SECTIONS)
def test_sections_that_are_none(section):
    wrong = content(section if section in TINY else "diffusion", **{section: 3})
    assert section in refusal(lambda: checks.run_config(wrong, where="test"))


@pytest.mark.parametrize(
    "word",
    [
        "optim.accumulate=0",
        "optim.learning_rate=-1",
        "optim.learning_rate=nan",
        "optim.ema_decay=7",
        "network.groups=0",
        "network.channels=-3",
        "network.channel_mult=()",
        "network.dropout=1.0",
        "network.num_heads=3",
        "noise.beta_end=inf",
        "train.num_steps=many",
        "seed=9223372036854775808",
    ],
)
def test_the_command_says_it_in_a_line(word, tmp_path, capsys):
    words = ["train", "--config", "configs/demo_ddpm.py:debug", "--workdir", str(tmp_path / "run"), f"--config.{word}"]
    assert cli.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "; fix: " in line
    assert not list(tmp_path.iterdir())


# Of keys that must fit each other, some that do and some that do not.
ADM = {"channels": (8, 9, 12), "channel_mult": ((1, 2),), "groups": (1, 4), "num_heads": (1, 8), "num_res_blocks": (1,)}
CHOICES = {
    "unet_adm": {**ADM, "head_channels": (0, 5, 8, 64)},
    "unet_ldm": {**ADM, "head_channels": (0, 5, 8)},
    "unet_authors": {k: v for k, v in ADM.items() if k != "num_res_blocks"} | {"attention_levels": ((), (0,))},
    "noisy_classifier": {**ADM, "head_channels": (5, 8, 64), "pool_side": (2,)},
    "vq_autoencoder": {"channels": (8, 9), "channel_mult": ((1,), (1, 2)), "groups": (1, 4, 16), "codebook_size": (4,)},
    "kl_autoencoder": {"channels": (8, 9), "channel_mult": ((1,), (1, 2)), "groups": (1, 4, 16)},
    "resnet": {"width": (3, 4), "stage_sizes": ((1,), (2, 1))},
}
# So many of those that fit are built, drawn at random.
BUILT = 2


BATCH = {"image": jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8), "label": jax.ShapeDtypeStruct((2,), jnp.int32)}


@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_do_not_fit_each_other_are_told_before_a_network_is_built(kind):
    """What is let through can be built and has a loss; what is not is said in a line that names a key."""
    task, choices = KINDS[kind].task, CHOICES[kind]
    fitting, refused = [], 0
    for values in itertools.product(*choices.values()):
        network = {"kind": kind, **dict(zip(choices, values, strict=True))}
        try:
            fitting.append(checks.run_config(content(task, network=network), where="test"))
        except DiffpathError as error:
            refused += 1
            assert any(str(error).startswith(f"key 'network.{key}'") for key in choices), error
    assert bool(refused) == (kind != "resnet")  # whose keys all go with each other
    for config in random.Random(0).sample(fitting, min(BUILT, len(fitting))):
        learns = make_task(config, num_classes=2)
        params, state = jax.eval_shape(learns.init, jax.random.key(0))
        jax.eval_shape(learns.losses[NETWORK], params, state, BATCH, jax.random.key(0))


@pytest.mark.parametrize("kind", ["unet_adm", "unet_ldm", "noisy_classifier"])
@pytest.mark.parametrize(("head_channels", "fits"), [(16, True), (48, False), (128, False)])
def test_heads_have_as_many_channels_as_they_are_said_to_have(kind, head_channels, fits):
    """Of 64 channels no heads of 48 can be made; one head of 64 would be another network than the one asked for."""
    section = {"kind": kind, "channels": 64, "channel_mult": (1,), "head_channels": head_channels}
    sections = content(KINDS[kind].task, network=section)
    if fits:
        assert checks.run_config(sections, where="test").network.heads(64) == 4
    else:
        line = refusal(lambda: checks.run_config(sections, where="test"))
        assert line.startswith("key 'network.head_channels'") and f"{head_channels} does not divide the 64" in line


@pytest.mark.parametrize("layers", [1, 3])
def test_a_discriminator_must_be_left_a_patch(layers):
    config = checks.run_config(content("autoencoding", autoencoding={"discriminator_layers": layers}), where="test")
    critic = PatchGanConfig(4, layers)
    network = purify(lambda rngs: PatchDiscriminator(critic, dtype=jnp.float32, rngs=rngs))
    params, state = jax.eval_shape(network.init, jax.random.key(0))

    def logits(side):
        x = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        return jax.eval_shape(lambda p, s, x: network.apply(p, s, x, train=False)[0], params, state, x)

    least = smallest_side(layers)
    assert logits(least).shape == (1, 1, 1, 1)
    size_checks.check_image_size(config, (least, least), where="test", fix="change it")
    less = least - 2
    assert not logits(less).size
    line = refusal(lambda: size_checks.check_image_size(config, (less, less), where="test", fix="change it"))
    assert line.startswith("key 'autoencoding.discriminator_layers'")


def test_something_must_be_left_of_an_image():
    for noise in (
        {"schedule": "linear", "num_steps": 20_000},
        {"schedule": "linear", "beta_start": 0.9, "beta_end": 0.9},
    ):
        assert refusal(lambda noise=noise: checks.run_config(content(noise=noise), where="test")).startswith(
            "key 'noise.beta_end'"
        )
