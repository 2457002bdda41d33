"""Parameters start a run only where they mean there what they meant where they came from."""

import pytest

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.runs.origin import check_origin, origin_of

NETWORK = {"kind": "unet_adm", "num_heads": 4, "head_channels": 32, "channel_mult": [1, 2], "dropout": 0.1}
CONVERTED = {"network": NETWORK, "noise": {"schedule": "linear", "beta_end": 0.02}, "prediction": "eps"}
CONFIG = {"network": NETWORK, "noise": {"schedule": "linear", "beta_end": 0.02}, "diffusion": {"prediction": "eps"}}


def check(**changes):
    return check_origin(
        origin_of(CONVERTED), origin_of({**CONFIG, **changes}), defaults={"standardise": False}, where="file"
    )


def test_what_a_file_a_run_and_an_export_say_is_the_same():
    assert origin_of(CONVERTED) == origin_of(CONFIG) == origin_of({"network": NETWORK, "config": CONFIG})
    assert check() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head_channels": 0}, "--config.network.head_channels=32"),
        ({"num_heads": 2}, "--config.network.num_heads=4"),
        ({"channel_mult": (2, 1)}, "--config.network.channel_mult='(1, 2)'"),
        ({"standardise": True}, "--config.network.standardise=False"),
        ({"kind": "unet_ldm"}, "--config.network.kind=unet_adm"),
    ],
)
def test_another_network_of_the_same_shapes_is_refused(change, said):
    with pytest.raises(DiffpathError) as error:
        check(network={**NETWORK, **change})
    assert said in str(error.value)


@pytest.mark.parametrize("change", [{"dropout": 0.0}, {"num_classes": 3}, {"channel_mult": (1, 2)}])
def test_what_changes_no_meaning_may_differ(change):
    assert check(network={**NETWORK, **change}) == []


def test_what_is_to_be_learnt_anew_is_said():
    assert check(diffusion={"prediction": "v"}) == ["prediction was eps and is v: the network has to learn that anew"]
    (note,) = check(noise={"schedule": "cosine", "beta_end": 0.02})
    assert "schedule linear and is cosine" in note


def test_a_file_that_says_nothing_is_told_so():
    (note,) = check_origin(origin_of({}), origin_of(CONFIG), defaults={}, where="file")
    assert "does not say what network it holds" in note
