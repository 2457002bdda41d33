"""Whatever lies beside the slides and is not used is named, and a name that could be two slides is refused."""

import json

import pytest

from data_prep import tables
from data_prep.sources import find_slides
from data_prep.splits.patients import read_patients
from diffpath_jax import cli
from diffpath_jax.io.errors import DiffpathError
from tests.conftest import feature, write_slide


@pytest.fixture
def find(tmp_path):
    """Make a cohort of empty files and look for its slides."""

    def run(slides, rows="", *, annotations=(), labels="", scales=None, masks=(), coordinates=()):
        for name in slides:
            (tmp_path / "slides" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "slides" / name).write_bytes(b"x")
        (tmp_path / "regions").mkdir(exist_ok=True)
        for name in annotations:
            (tmp_path / "regions" / name).write_text("[]")
        beside = {"masks": masks, "coordinates": coordinates}
        for folder, names in beside.items():
            (tmp_path / folder).mkdir(exist_ok=True)
            for name in names:
                (tmp_path / folder / name).write_bytes(b"x")
        (tmp_path / "patients.csv").write_text("slide,patient\n" + rows)
        (tmp_path / "labels.csv").write_text("slide,class\n" + labels)
        return find_slides.find_sources(
            tmp_path / "slides",
            tmp_path / "regions" if annotations else None,
            patients=read_patients(tmp_path / "patients.csv", column="slide", splits=("train",)),
            slide_labels=tmp_path / "labels.csv" if labels else None,
            scales=scales or {},
            **{folder: tmp_path / folder if names else None for folder, names in beside.items()},
        )

    return run


def test_other_formats_and_folders_below_are_named(find):
    labels = "A,x\nB,x\n"
    named = find(
        ["A.svs", "B.svs", "C.vsi", "more/D.svs", "more/deep/E.tif", ".hidden.svs"], "A,1\nB,2\n", labels=labels
    )
    assert [source.slide.name for source in named.sources] == ["A.svs", "B.svs"]
    left_out, below = named.notes
    assert "C.vsi" in left_out and "hidden" not in left_out
    assert "more/D.svs" in below and "more/deep/E.tif" in below
    # The pixels of such a slide lie in a folder of its name.
    assert find(["M.mrxs", "M/Data.dcm"], "M,1\nA,1\nB,1\n", labels="M,x\n" + labels).notes[-1] == below


def test_rows_and_annotation_files_that_match_nothing_are_named(find):
    named = find(
        ["A.svs"],
        "A,1\nC,2\n",
        annotations=["A.geojson", "B.geojson", "notes.txt"],
        labels="D,x\n",
        scales={"0A": 0.25},
    )
    assert named.notes == (
        "rows of --patients that match no slide: 1 (C)",
        "rows of --slide_labels that match no slide: 1 (D)",
        "rows of --mpp_csv that match no slide: 1 (0A)",
        "annotation files that match no slide: 1 (B.geojson)",
    )
    many = "".join(f"S{i},{i}\n" for i in range(100, 300))
    (note, *_) = find(["A.svs"], f"A,1\n{many}", annotations=["A.geojson"]).notes
    assert "200 (S100, S101" in note and note.endswith("and 190 more)")


def test_masks_and_places_that_match_nothing_are_named(find):
    files = {"masks": ["A.PNG", "B.geojson.gz", "notes.txt"], "coordinates": ["A_patches.H5", "C.h5"]}
    named = find(["A.svs"], "A,1\n", labels="A,x\n", **files)
    assert named.notes == (
        "tissue masks that match no slide: 1 (B.geojson.gz)",
        "files of coordinates that match no slide: 1 (C.h5)",
    )
    assert (named.sources[0].tissue_mask.name, named.sources[0].coordinates.name) == ("A.PNG", "A_patches.H5")


def test_odd_names_stay_on_one_line(find):
    (note,) = find(["A.svs", "line\nbreak.txt", "\udcff.txt"], "A,1\n", labels="A,x\n").notes
    assert r"line\nbreak.txt" in note and r"\udcff.txt" in note and note.isprintable()


def test_nothing_is_said_where_all_is_used(find):
    named = find(["A.svs", "B.ome.tif"], "A,1\nB,2\n", annotations=["A.svs.geojson", "B.json"], scales={"B": 0.25})
    assert named.notes == ()
    assert [(source.regions.name, source.mpp) for source in named.sources] == [
        ("A.svs.geojson", None),
        ("B.json", 0.25),
    ]


def test_one_row_for_two_slides_is_said_and_one_annotation_file_refused(find):
    both = ["A.svs", "A.tif"]
    assert find(both, "A,1\n", labels="A,x\n").notes == (
        "rows of --patients that stand for several slides each: 1 (A)",
        "rows of --slide_labels that stand for several slides each: 1 (A)",
    )
    whole = "A.svs,1\nA.tif,2\n"
    assert len(find(both, whole, labels="A.svs,x\nA.tif,y\n").sources) == 2
    with pytest.raises(DiffpathError, match=r"A\.geojson: it is of A\.svs and of A\.tif"):
        find(both, whole, annotations=["A.geojson"])
    for kind, file in (("masks", "A.png"), ("coordinates", "A.h5")):
        with pytest.raises(DiffpathError, match=r"A\.(png|h5): it is of A\.svs and of A\.tif"):
            find(both, whole, labels="A,x\n", **{kind: [file]})


def test_two_rows_for_one_slide_may_not_differ(find):
    same = {"labels": "A,x\nA.svs,x\n", "scales": {"A": 0.25, "A.svs": 0.25}}
    assert find(["A.svs"], "A,1\nA.svs,1\n", **same).sources[0].mpp == 0.25
    for other in ({"labels": "A,x\nA.svs,y\n"}, {"scales": {"A": 0.25, "A.svs": 0.5}}):
        with pytest.raises(DiffpathError, match=r"A\.svs is meant by 'A\.svs' and 'A', and they differ"):
            find(["A.svs"], "A,1\n", **{**same, **other})


@pytest.mark.parametrize(
    "pair", [("007", "7"), ("7.0", "7"), ("0", "000"), ("p 1", "P1"), ("\N{FULLWIDTH LATIN CAPITAL LETTER P}1", "p1")]
)
def test_two_spellings_of_a_patient_are_a_doubt(tmp_path, pair):
    (tmp_path / "p.csv").write_text(f"slide,patient\na,{pair[0]}\nb,{pair[1]}\n")
    with pytest.raises(DiffpathError, match="look like one patient"):
        read_patients(tmp_path / "p.csv", column="slide", splits=())


def test_other_patients_are_no_doubt(tmp_path):
    names = ["7", "70", "700", "7.5", "P7", "P70", "7-1", "71"]
    (tmp_path / "p.csv").write_text("slide,patient\n" + "".join(f"s{name},{name}\n" for name in names))
    assert len(read_patients(tmp_path / "p.csv", column="slide", splits=()).owners) == len(names)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_as_spreadsheets_write_them(tmp_path, encoding, delimiter):
    text = f"slide{delimiter}patient\r\nGrün{delimiter}P 1\r\n"
    mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
    (tmp_path / "p.csv").write_bytes(mark + text.encode(encoding))
    assert tables.read_table(tmp_path / "p.csv", columns=("slide", "patient")) == {"Grün": "P 1"}


COMPOSED, APART = "Gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", "Gru\N{COMBINING DIAERESIS}n"


@pytest.mark.parametrize(("file", "row"), [(COMPOSED, APART), (APART, COMPOSED)])
def test_composed_and_decomposed_letters_are_one_name(find, file, row):
    named = find([f"{file}.svs"], f"{row},1\n", annotations=[f"{row}.geojson"], scales={COMPOSED: 0.25})
    assert [source.mpp for source in named.sources] == [0.25] and named.notes == ()


def test_a_broken_slide_is_the_cause_that_is_said_first(tmp_path, capsys):
    for folder in ("slides", "regions"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        write_slide(tmp_path / "slides" / f"s{number}.svs", seed=number)
        (tmp_path / "regions" / f"s{number}.geojson").write_text(json.dumps([feature("Purple", 128, 128, 512, 896)]))
    (tmp_path / "slides" / "s0.svs").write_bytes(b"II*\0" + bytes(100))
    (tmp_path / "patients.csv").write_text("slide,patient\ns0,p0\ns1,p1\ns2,p2\n")
    words = ["--slides", tmp_path / "slides", "--annotations", tmp_path / "regions"]
    words += ["--patients", tmp_path / "patients.csv", "--fov_um", 64, "--patch_px", 16, "--workers", 0]
    assert cli.main([str(word) for word in ("prep", "--out", tmp_path / "out", *words)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "s0.svs" in lines[0] and "2 patients with fields of view cannot fill 3 splits" in lines[1]
