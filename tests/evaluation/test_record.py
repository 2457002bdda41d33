"""``metrics.json``: what is written is read back, by whatever version it was written."""

import json
import tarfile

import pytest

from diffpath_jax.evaluation import record
from diffpath_jax.evaluation.record import Number
from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.io.sealed import SEAL
from diffpath_jax.metrics.memorization.audit import AuditConfig, Pair
from tests.compatibility.test_first_version import ARCHIVE

ALARMS = {"guaranteed": 0.01, "measured": 0.0, "interval": [0.0, 0.02], "n": 200, "by_patient": True}
COPIES = {
    "flagged": [3], "certain": [], "share": 0.1, "p_value": 0.2, "copying": False, "verdict": "none",
    "threshold": 0.5, "false_alarms": ALARMS, "closest": [],
}  # fmt: skip
SET = {
    "where": "a", "split": "train", "kind": "real", "digest": "1", "dataset": "2", "n": 10,
    "image_px": [16, 16], "mpp": None, "patients": 0,
}  # fmt: skip
AUDIT = {
    "doubts": ["other data"],
    "sources": {"generated": SET},
    "config": {
        "calibration": {"neighbours": 50, "false_alarm_rate": 0.01, "confidence": 0.95, "max_ratio": 0.9},
        "candidates": 100, "shift_px": 4, "significance": 0.01, "closest": 20,
    },
    "seed": 0,
    "copies": COPIES,
    "repeated": COPIES | {"groups": [[1, 2]]},
    "other_tests": [
        {"features": "x", "n_training": 9, "auth_percent": 50.0, "auth_percent_of_held_out": 51.0, "note": "no C_T"}
    ],
}  # fmt: skip
CONTENT = {
    "versions": {"jax": "0"},
    "seed": 0,
    "resamples": 5,
    "reference": {"where": "b.npz", "split": "", "kind": "statistics", "digest": "3", "dataset": "", "n": None},
    "sets": {"generated": SET},
    "classification": [],
    "audit": AUDIT,
}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def test_the_file_of_the_first_version(tmp_path):
    with tarfile.open(ARCHIVE) as archive:
        member = next(member for member in archive if member.name.endswith("evaluation/metrics.json"))
        stored = archive.extractfile(member).read()
    (tmp_path / "metrics.json").write_bytes(stored)
    found = record.read(tmp_path / "metrics.json")
    kernel = found.distances[0].rows["generated"]["pink"].metrics["KD-resnet16"]
    assert kernel.details["subset_size"] == 5 and kernel.standard_error == pytest.approx(0.0449, abs=1e-4)
    record.write(tmp_path / "again.json", found)
    again = json.loads((tmp_path / "again.json").read_text())
    assert again.pop(SEAL) and again == json.loads(stored)


def test_an_audit_comes_back(tmp_path):
    found = record.read(write(tmp_path / "metrics.json", CONTENT))
    assert found.audit.warnings == ["other data"] and found.audit.config == AuditConfig()
    assert type(found.reference) is record.SetRecord and type(found.sets["generated"]) is record.ImageSetRecord
    assert record.as_json(found) == CONTENT


def test_pairs_of_images_come_back(tmp_path):
    pair = {"generated": 1, "reference": 2, "symmetry": 3, "shift": [0.0, 1.5]}
    pair |= {"distance": 0.1, "ratio": 0.2, "chance": 0.3}
    content = CONTENT | {"audit": AUDIT | {"copies": COPIES | {"closest": [pair]}}}
    found = record.read(write(tmp_path / "metrics.json", content))
    assert found.audit.copies.closest == [Pair(1, 2, 3, (0.0, 1.5), 0.1, 0.2, 0.3)]


def test_a_number_without_an_interval_is_its_value():
    assert record.as_json(Number(1.5, details={"subsets": 100})) == {"value": 1.5, "subsets": 100}


@pytest.mark.parametrize(("change", "why"), [({"seed": "x"}, "seed"), ({"sets": 3}, "sets"), ({"audit": {}}, "audit")])
def test_damaged_files_are_named(tmp_path, change, why):
    path = write(tmp_path / "metrics.json", CONTENT | change)
    with pytest.raises(DiffpathError, match=f"metrics in .*metrics.json: .*{why}.*; fix: name the --out"):
        record.read(path)
