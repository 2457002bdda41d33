"""A condition from outside the package: trained with, drawn from, told of in help, files and errors, in one place."""

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import pytest
from flax import nnx

from diffpath_jax import cli
from diffpath_jax.data.manifest import open_dataset
from diffpath_jax.networks.conditions import CONDITIONS, ConditionKind
from diffpath_jax.networks.unet_adm import UNetConfig
from tests.conftest import register, train_words


class Number(nnx.Module):
    """A number's product with a vector; another vector where there is none (NaN)."""

    def __init__(self, config, *, rngs):
        self.slope, self.null = (nnx.Param(jnp.full(config.condition_width, value)) for value in (0.01, 0.5))

    def __call__(self, x):
        known = jnp.isfinite(x)[:, None]
        return jnp.where(known, jnp.nan_to_num(x)[:, None] * self.slope[...], self.null[...])


PLACE = ConditionKind(
    name="place",
    attribute="place",
    read=lambda record: np.float32(record.index),
    null=lambda num_classes: np.asarray(np.nan, np.float32),
    parse=float,
    make=Number,
)


@pytest.fixture(scope="module")
def registered():
    with pytest.MonkeyPatch.context() as patch:
        register(patch, CONDITIONS, PLACE)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, dataset, registered):
    """A model that was told of the place of each field."""
    workdir = tmp_path_factory.mktemp("placed") / "run"
    words = train_words(workdir, dataset, {"network.conditions": "('label','place')"})
    assert cli.main(words) == 0
    assert cli.main(words) == 0  # and resumes
    return workdir


def drawn(run, out, *words):
    fixed = ["--workdir", str(run), "--out", str(out), "--num_per_class", "2", "--steps", "2", "--sampler", "ddim"]
    assert cli.main(["sample", *fixed, "--raw_parameters", *words]) == 0
    return open_dataset(out), np.stack([record.image for record in open_dataset(out).read("train")])


def test_it_is_drawn_from_and_stands_in_the_files(run, tmp_path):
    dataset, placed = drawn(run, tmp_path / "placed", "--condition", "place=300", "--guidance", "1")
    _, elsewhere = drawn(run, tmp_path / "elsewhere", "--condition", "place=0", "--guidance", "1")
    other, nowhere = drawn(run, tmp_path / "nowhere", "--guidance", "1")
    assert not np.array_equal(placed, elsewhere) and not np.array_equal(placed, nowhere)
    table = pyarrow.parquet.read_table(tmp_path / "placed" / "samples.parquet")
    assert set(table["place"].to_pylist()) == {300.0}
    assert dataset.details.job["conditions"] == {"place": 300.0}
    assert "conditions" not in other.details.job


def test_another_value_is_another_job(run, tmp_path, capsys):
    drawn(run, tmp_path / "set", "--condition", "place=1")
    words = ["sample", "--workdir", str(run), "--out", str(tmp_path / "set"), "--num_per_class", "2", "--steps", "2"]
    assert cli.main([*words, "--sampler", "ddim", "--raw_parameters", "--condition", "place=2"]) == 4
    assert "another conditions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "said"),
    [("site=3", "it takes place"), ("place=far", "could not convert"), ("label=1", "not told 'label'")],
)
def test_what_is_not_known_is_one_line(run, tmp_path, capsys, word, said):
    words = ["sample", "--workdir", str(run), "--out", str(tmp_path / "odd"), "--num_per_class", "1"]
    assert cli.main([*words, "--condition", word]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "odd").exists()


def test_help_lists_it(registered, capsys):
    with pytest.raises(SystemExit):
        cli.main(["sample", "--help"])
    assert "(mpp, place, columns of a table)" in " ".join(capsys.readouterr().out.split())


def test_an_unknown_name_in_a_config_is_a_conflict(registered):
    assert UNetConfig(conditions=("label", "place")).conflict() is None
    assert UNetConfig(conditions=("label", "site")).conflict() == (
        "conditions",
        "'site' is none of label, mpp, features, columns, place",
    )
    assert UNetConfig(conditions=("label", "label")).conflict() == ("conditions", "'label' is there twice")


def test_names_are_taken_once(registered):
    with pytest.raises(ValueError, match="has the name or the attribute"):
        CONDITIONS.register(ConditionKind("place", "other", PLACE.read, PLACE.null, PLACE.parse, PLACE.make))
