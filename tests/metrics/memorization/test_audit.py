"""The audit finds planted copies of every kind, and nothing where there is none. Patients are drawn, see tissue.py."""

from dataclasses import dataclass

import numpy as np
import pytest
import scipy.stats

from diffpath_jax.metrics.memorization import audit as memorization
from diffpath_jax.metrics.memorization import calibration, matching
from diffpath_jax.metrics.memorization.audit import AuditConfig
from tests.metrics.memorization import tissue

CONFIG = AuditConfig()
# Least share of copies to be found.
WANTED = {"exact": 0.99, "jittered": 0.95, "turned": 0.95, "shifted": 0.95, "restained": 0.95, "everything": 0.95}


@dataclass(frozen=True)
class Planted:
    """A calibrated search in training images, and what it finds for honest images and for copies of each kind."""

    calibration: calibration.Calibration
    honest: matching.Matches
    copied: dict


def source(images, patients=None):
    return matching.in_memory(images, np.array(["a"] * len(images)) if patients is None else patients)


def plant(*, px, stride, side, patients, copies_of_each):
    """Training, held-out and honest patients; images of one patient overlap."""
    seeds = np.split(np.arange(sum(patients)), np.cumsum(patients)[:-1])
    sets = [tissue.cohort(s.tolist(), px=px, stride=stride, side=side) for s in seeds]
    (training, _), (held_out, names), (honest, _) = sets
    reference = matching.index(source(training), np.zeros(len(training), np.int64))

    def find(images):
        keys = np.ones(len(images), np.int64)
        settings = {"candidates": CONFIG.candidates, "shift_px": CONFIG.shift_px}
        return matching.find(source(images), reference, keys=keys, **settings)

    rng = np.random.default_rng(0)
    copied = {}
    for kind, disguise in tissue.DISGUISES.items():
        chosen = training[rng.choice(len(training), copies_of_each, replace=False)]
        copied[kind] = find(np.stack([disguise(image, rng) for image in chosen]))
    found = calibration.calibrate(find(held_out).distances, names, config=CONFIG.calibration, seed=0)
    return Planted(found, find(honest), copied)


def mixed(planted, kind, count):
    """Honest images of which the first few are replaced by copies."""
    parts = (planted.copied[kind], planted.honest)
    names = ("indices", "distances", "symmetries", "shifts")
    arrays = {n: np.concatenate([getattr(parts[0], n)[:count], getattr(parts[1], n)[count:]]) for n in names}
    return matching.Matches(**arrays)


@pytest.fixture(scope="module")
def planted():
    return plant(px=64, stride=32, side=384, patients=(4, 6, 3), copies_of_each=20)


def check_planted(planted, kind, share):
    count = max(1, round(share * len(planted.honest.indices)))
    found = memorization.judge(mixed(planted, kind, count), planted.calibration, config=CONFIG)
    assert found.flagged[:count].mean() >= WANTED[kind]
    assert found.copying
    assert found.certain[:count].all() and not found.certain[count:].any()
    assert all(pair.generated < count for pair in found.pairs[:count])


@pytest.mark.parametrize("share", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("kind", tissue.DISGUISES)
def test_planted_copies_are_found(planted, kind, share):
    check_planted(planted, kind, share)


@pytest.mark.parametrize("kind", tissue.DISGUISES)
def test_copies_of_every_kind_are_flagged(planted, kind):
    assert memorization.judge(planted.copied[kind], planted.calibration, config=CONFIG).flagged.mean() >= WANTED[kind]


def test_honest_images_raise_no_alarm(planted):
    found = memorization.judge(planted.honest, planted.calibration, config=CONFIG)
    assert not found.copying and not found.certain.any()
    assert found.flagged.mean() <= 0.02
    assert "no sign of copying" in found.verdict
    assert planted.calibration.by_patient
    assert planted.calibration.rate <= 0.01
    assert planted.calibration.fresh_rate <= 0.01


@pytest.mark.full
@pytest.mark.parametrize(("px", "stride", "side"), [(32, 16, 256), (64, 32, 512), (128, 48, 640), (224, 48, 800)])
def test_thorough(px, stride, side):
    """Many patients, 200 copies of each kind; 500 or more honest images of fresh patients."""
    planted = plant(px=px, stride=stride, side=side, patients=(10, 8, 6), copies_of_each=200)
    honest = memorization.judge(planted.honest, planted.calibration, config=CONFIG)
    assert not honest.copying
    assert honest.flagged.mean() <= 0.01
    assert planted.calibration.fresh_rate <= 0.01
    for kind, wanted in WANTED.items():
        found = memorization.judge(planted.copied[kind], planted.calibration, config=CONFIG)
        assert found.flagged.mean() >= wanted, kind
        for share in (0.005, 0.01, 0.05):
            check_planted(planted, kind, share)


def test_copies_of_what_training_holds_many_times():
    """70 copies of one image in training, more than there are next neighbours: their ratio among each other is 1."""
    training, _ = tissue.cohort([0], px=64, stride=32)
    held_out, names = tissue.cohort([1, 2], px=64, stride=32)
    repeated = np.concatenate([training, np.repeat(training[:1], 70, axis=0)])
    rng = np.random.default_rng(0)
    generated = np.stack([tissue.everything(training[0], rng) for _ in range(3)])
    found = memorization.audit(source(generated), source(repeated), source(held_out, names), config=CONFIG, seed=0)
    assert found.flagged.all() and found.certain.all()
    assert "copies" in found.verdict and "too few" in found.verdict
    again = memorization.audit(source(generated), source(repeated), source(held_out, names), config=CONFIG, seed=0)
    assert again.pairs == found.pairs and again.verdict == found.verdict


def matches_of(ratios):
    """Matches whose next distances are 1."""
    distances = np.stack([ratios, np.ones(len(ratios))], axis=1)
    zeros = np.zeros(distances.shape, np.int64)
    return matching.Matches(zeros, distances, zeros, np.zeros((*distances.shape, 2)))


def test_verdict_by_hand():
    """1,000 held-out ratios between 0.5 and 1; the third smallest of those that calibrate is the threshold."""
    honest = matches_of(np.random.default_rng(0).uniform(0.5, 1, 1300))
    names = np.repeat(["a", "b"], 650)
    set_by = calibration.calibrate(honest.distances, names, config=CONFIG.calibration, seed=0)
    assert set_by.count == set_by.fresh_count == 650
    below = np.nextafter(set_by.threshold, 0)
    few, many = (matches_of(np.r_[np.full(n, below), np.full(1000 - n, 0.9)]) for n in (10, 30))
    honest, copying = (memorization.judge(m, set_by, config=CONFIG) for m in (few, many))
    assert (honest.copying, copying.copying) == (False, True)
    assert not copying.certain.any()
    for found, count in ((honest, 10), (copying, 30)):
        assert found.p_value == pytest.approx(scipy.stats.binom.sf(count - 1, 1000, set_by.expected_rate))
    assert honest.verdict.startswith("10 of 1,000 flagged (1.00%); of 650 real images of other patients, ")
    assert "more than false alarms explain" in copying.verdict


def test_duplicates_and_their_groups():
    held_out, names = tissue.cohort([1, 2, 3, 4], px=64, stride=64)
    images, _ = tissue.cohort([5, 6], px=64, stride=64)
    rng = np.random.default_rng(0)
    again = [tissue.everything(images[0], rng), tissue.turned(images[0], rng), tissue.restained(images[7], rng)]
    generated = np.concatenate([images, np.stack(again)])
    found = memorization.duplicates(source(generated), source(held_out, names), config=CONFIG, seed=0)
    n = len(images)
    assert found.groups == ((0, n, n + 1), (7, n + 2))
    assert np.flatnonzero(found.audit.flagged).tolist() == [0, 7, n, n + 1, n + 2]
    assert found.audit.copying
    honest = memorization.duplicates(source(images), source(held_out, names), config=CONFIG, seed=0)
    assert honest.groups == () and not honest.audit.copying


def test_sets_that_are_too_small():
    images = tissue.patches(tissue.patient(0), 64, 64)
    with pytest.raises(ValueError, match="1 held-out images"):
        memorization.audit(source(images), source(images), source(images[:1]), config=CONFIG, seed=0)
    with pytest.raises(ValueError, match="0 generated images"):
        memorization.audit(source(images[:0]), source(images), source(images), config=CONFIG, seed=0)


def test_held_out_patients_who_are_in_training_are_named():
    images = tissue.patches(tissue.patient(0), 64, 64)
    found = memorization.audit(source(images), source(images[:8]), source(images[8:]), config=CONFIG, seed=0)
    assert found.verdict.endswith("held-out patients who are in training too: 1, so copies may be missed")
