"""Files with a digest over what they say: any change is named, and files without a digest are read by their types."""

import json
from dataclasses import dataclass, field

import pytest

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.sealed import SEAL, opened, read_sealed, sealed, write_sealed


@dataclass(frozen=True)
class Thing:
    name: str
    side: tuple[int, int]
    mpp: float
    notes: dict[str, str] = field(default_factory=dict)


CONTENT = {"name": "a", "side": (16, 8), "mpp": 1, "notes": {"1": "é"}}


def damaged(path):
    with pytest.raises(DiffpathError) as caught:
        read_sealed(path, Thing, what="thing", fix="write it again")
    assert caught.value.code == ExitCode.DAMAGED and str(path) in str(caught.value)
    return caught.value.why


def test_what_is_written_is_read_as_its_type(tmp_path):
    write_sealed(tmp_path / "x.json", CONTENT)
    assert read_sealed(tmp_path / "x.json", Thing, what="thing", fix="") == Thing("a", (16, 8), 1.0, {"1": "é"})


def test_the_digest_is_that_of_the_canonical_json():
    """Sorted keys, no spaces: by hand."""
    import hashlib

    assert sealed({"b": 1, "a": (2,)})[SEAL] == hashlib.sha256(b'{"a":[2],"b":1}').hexdigest()
    # Keys of JSON are texts: in their order, 10 comes before 9.
    assert sealed({"n": {9: 0, 10: 0}})[SEAL] == hashlib.sha256(b'{"n":{"10":0,"9":0}}').hexdigest()


def test_every_flipped_bit_is_named_or_changes_nothing(tmp_path):
    write_sealed(tmp_path / "x.json", CONTENT)
    whole = (tmp_path / "x.json").read_bytes()
    intact, named = Thing("a", (16, 8), 1.0, {"1": "é"}), 0
    for position in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            (tmp_path / "x.json").write_bytes(data)
            try:
                assert read_sealed(tmp_path / "x.json", Thing, what="thing", fix="") == intact
            except DiffpathError as error:
                assert error.code == ExitCode.DAMAGED
                named += 1
    assert named > 7 * len(whole) // 2


@pytest.mark.parametrize(
    "change",
    [
        {"name": 3}, {"name": None}, {"side": [16]}, {"side": "16"}, {"side": {"0": 16, "1": 8}}, {"mpp": "1.5"},
        {"mpp": True}, {"notes": ["1"]}, {"notes": {"1": 2}},
    ],
)  # fmt: skip
def test_a_wrong_shape_without_a_digest_is_named(tmp_path, change):
    (tmp_path / "x.json").write_text(json.dumps({**CONTENT, **change}))
    assert next(iter(change)) in damaged(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '"text"', "", "{", "{}", '{"mpp": NaN}', "[" * 100_000, '"\\ud800"']
)
def test_no_object_is_damage(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    damaged(tmp_path / "x.json")


def test_a_digest_under_a_damaged_name_is_named(tmp_path):
    """A dictionary would take the digest for one more of its own entries, and a file with it for an earlier one."""
    for name, why in (("sea", "its digest is called 'sea'"), ("mpp", "'mpp' stands there twice")):
        write_sealed(tmp_path / "x.json", {"mpp": 1.5})
        text = (tmp_path / "x.json").read_text()
        (tmp_path / "x.json").write_text(text.replace(f'"{SEAL}"', f'"{name}"'))
        with pytest.raises(DiffpathError, match=why) as caught:
            read_sealed(tmp_path / "x.json", dict, what="thing", fix="")
        assert caught.value.code == ExitCode.DAMAGED


def test_bytes_that_are_no_text_are_damage(tmp_path):
    (tmp_path / "x.json").write_bytes(b"\xff\xfe{}")
    damaged(tmp_path / "x.json")


def test_a_number_beyond_every_float_is_refused():
    with pytest.raises(ValueError):
        opened({**CONTENT, "mpp": float("inf"), SEAL: "0" * 64}, Thing)


def test_a_missing_file_is_bad_input(tmp_path):
    with pytest.raises(DiffpathError, match="no such file") as caught:
        read_sealed(tmp_path / "x.json", Thing, what="thing", fix="name another")
    assert caught.value.code == ExitCode.BAD_INPUT
