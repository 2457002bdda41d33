"""Which annotation file or label belongs to which slide, through the real command."""

import json
import shutil

import numpy as np
import pytest

from diffpath_jax import cli
from diffpath_jax.data import manifest
from tests.conftest import feature, write_slide
from tests.data_prep.dicom_slides import write_level

FIELDS = ["--fov_um", "32", "--patch_px", "16", "--stride_um", "32", "--gap_um", "16"]
PURPLE = feature("Purple", 128, 128, 512, 896)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for number in range(3):
        write_slide(folder / f"s{number}.svs", seed=number)
    return folder


@pytest.fixture
def prep(tmp_path, slides, capsys):
    """Run the command on three slides of three patients; its exit code, its error lines and what it said."""
    (tmp_path / "patients.csv").write_text("slide,patient\n" + "".join(f"s{i},p{i}\n" for i in range(3)))
    (tmp_path / "regions").mkdir()

    def run(*words, source=slides):
        words = ["prep", "--slides", source, "--patients", tmp_path / "patients.csv", "--out", tmp_path / "out", *words]
        code = cli.main([str(word) for word in [*words, *FIELDS]])
        shown = capsys.readouterr().err
        return code, [line for line in shown.splitlines() if line.startswith("error")], " ".join(shown.split())

    return run


def test_regions_win_over_labels_and_both_work_together(tmp_path, prep):
    for number in range(2):
        (tmp_path / "regions" / f"s{number}.geojson").write_text(json.dumps([PURPLE]))
    (tmp_path / "labels.csv").write_text("slide,class\ns1.svs,Tissue\ns2,Tissue\n")
    code, lines, _ = prep("--annotations", tmp_path / "regions", "--slide_labels", tmp_path / "labels.csv")
    assert (code, lines) == (0, [])
    dataset = manifest.open_dataset(tmp_path / "out")
    assert dataset.schema.classes == ("purple", "tissue")
    counts = [sum(found[name] for found in dataset.class_counts.values()) for name in dataset.schema.classes]
    # A block is 6 x 12 fields; the whole slide's tissue is two blocks, and what is not tissue is left out.
    assert counts == [2 * 6 * 12, 2 * 6 * 12]


def test_labels_alone(tmp_path, prep):
    (tmp_path / "labels.csv").write_text("slide,class\ns0,A\ns1,A\ns2,B\n")
    assert prep("--slide_labels", tmp_path / "labels.csv")[:2] == (0, [])
    assert manifest.open_dataset(tmp_path / "out").schema.classes == ("a", "b")


@pytest.mark.parametrize(
    ("files", "labels", "said"),
    [
        (["s0.geojson", "s1.geojson"], "slide,class\ns1,A\n", "nothing for s2.svs"),
        (["s0.geojson", "s1.xml", "s2.json"], "slide,class\ns1,A\n", "XML"),
        (["s0.geojson", "s0.xml", "s1.json"], "slide,class\ns1,A\n", "s0.geojson and s0.xml are both of s0.svs"),
        (["s0.geojson"], "slide,label\ns1,A\n", "class"),
        (["s0.geojson"], "slide,class\ns1,A\ns1,B\n", "s1 stands twice"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, prep, files, labels, said):
    for name in files:
        (tmp_path / "regions" / name).write_text(json.dumps([PURPLE]) if "xml" not in name else "<a")
    (tmp_path / "labels.csv").write_text(labels)
    code, lines, _ = prep("--annotations", tmp_path / "regions", "--slide_labels", tmp_path / "labels.csv")
    assert code == 2 and len(lines) == 1 and said in lines[0] and "; fix: " in lines[0]
    assert not (tmp_path / "out").exists()


def test_neither_is_one_line(tmp_path, prep):
    code, lines, _ = prep()
    assert code == 2 and "--slide_labels" in lines[0] and len(lines) == 1
    (tmp_path / "labels.csv").write_text("slide,class\ns0,A\ns1,A\n")
    code, lines, _ = prep("--slide_labels", tmp_path / "labels.csv")
    assert code == 2 and "nothing for s2.svs" in lines[0] and len(lines) == 1


def test_a_label_the_class_map_does_not_know(tmp_path, prep, slides):
    (tmp_path / "labels.csv").write_text("slide,class\ns0,A\n")
    (tmp_path / "map.json").write_text('{"classes": {"B": "b"}}')
    words = ["--slide_labels", tmp_path / "labels.csv", "--classes", tmp_path / "map.json"]
    code, lines, _ = prep(*words, source=slides / "s0.svs")
    assert code == 2 and "'A'" in lines[0] and "--classes" in lines[0]


def test_what_was_left_out_is_counted_on_the_card(tmp_path, prep, slides):
    regions = [PURPLE, feature("Pink", 448, 128, 1280, 896), feature("Pen", 0, 0, 9, 9)]
    (tmp_path / "one.geojson").write_text(json.dumps(regions))
    (tmp_path / "map.json").write_text(
        json.dumps({"classes": {"Purple": "purple", "Pink": "pink"}, "ignore": ["Pen"], "overlap": "priority"})
    )
    words = ["--annotations", tmp_path / "one.geojson", "--classes", tmp_path / "map.json"]
    code, _, shown = prep(*words, source=slides / "s0.svs")
    assert code == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for note in (
        "regions of ignored classes: 1 (Pen 1)",
        # 256 x 768 of (384 + 832) x 768 px.
        f"regions reach outside 1 slides, with up to {256 / (384 + 832):.1%} of a slide's area",
        "fields on overlaps of classes: 12, of which 12 are kept",
    ):
        assert note in card and note in shown
    (tmp_path / "map.json").write_text('{"classes": {"Purple": "purple", "Pink": "pink"}, "ignore": ["Pen"]}')
    code, lines, _ = prep(*words, source=slides / "s0.svs")
    assert code == 4 and "another overlap" in lines[0]
    shutil.rmtree(tmp_path / "out")
    assert prep(*words, source=slides / "s0.svs")[0] == 0
    assert "fields on overlaps of classes: 12, of which 0 are kept" in (tmp_path / "out" / "README.md").read_text()


def test_a_rule_for_overlaps_that_is_none(tmp_path, prep, slides):
    (tmp_path / "one.geojson").write_text(json.dumps([PURPLE]))
    (tmp_path / "map.json").write_text('{"classes": {"Purple": "purple"}, "overlap": "both"}')
    words = ["--annotations", tmp_path / "one.geojson", "--classes", tmp_path / "map.json"]
    code, lines, _ = prep(*words, source=slides / "s0.svs")
    assert code == 2 and "write reject or priority" in lines[0]


def test_doubts_about_a_scale_are_said_slide_by_slide_and_on_the_card(tmp_path, prep, slides):
    (tmp_path / "labels.csv").write_text("slide,class\ns0,A\ns1,A\ns2,A\n")
    # The slides state 0.5 um/px and 20X.
    (tmp_path / "mpp.csv").write_text("slide,mpp\ns1,0.25\n")
    code, lines, shown = prep("--slide_labels", tmp_path / "labels.csv", "--mpp_csv", tmp_path / "mpp.csv")
    assert (code, lines) == (0, [])
    doubts = ["0.25 um/px, but 20X gives about 0.5", "0.25 um/px from the table, but the slide states 0.5 x 0.5"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "um/px of level 0: 0.25 to 0.5, from: slide 2, table 1" in card
    for doubt in doubts:
        assert f"note: s1.svs: {doubt}" in shown and f"note: s0.svs: {doubt}" not in shown
        assert f"1 of 3 slides: {doubt}" in card and "s1" not in card
    found = [list(scale.doubts) for scale in manifest.open_dataset(tmp_path / "out").details.scales]
    assert found == [[], doubts, []]


def test_levels_of_a_dicom_slide_are_one_slide(tmp_path, prep):
    """Each level lies in a file of its own, and any of them opens all."""
    folder = tmp_path / "dicom"
    folder.mkdir()
    files = (("a0", 1, "1.2.3"), ("a1", 2, "1.2.3"), ("b", 1, "1.2.4"), ("c", 1, "1.2.5"))
    for number, (name, step, series) in enumerate(files):
        rng = np.random.default_rng(ord(series[-1]))
        image = np.clip(rng.normal((180, 120, 170), 25, (512, 512, 3)), 0, 255).astype(np.uint8)[::step, ::step]
        write_level(folder / f"{name}.dcm", image, mm=0.0005 * step, series=series, number=number)
    (tmp_path / "patients.csv").write_text("slide,patient\na0,p0\nb,p1\nc,p2\n")
    (tmp_path / "labels.csv").write_text("slide,class\na0,A\nb,A\nc,A\n")
    code, lines, shown = prep("--slide_labels", tmp_path / "labels.csv", source=folder)
    assert (code, lines) == (0, [])
    assert "read as a part of another one's slide: 1 (a1.dcm)" in shown and "of other formats" not in shown
    made = manifest.open_dataset(tmp_path / "out")
    assert len({record.slide for split in made.splits for record in made.read(split)}) == 3
    assert made.details.scales[0].x == pytest.approx(0.5)
