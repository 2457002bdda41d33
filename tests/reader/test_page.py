"""Pages of readers: nothing tells which image is which, and in a browser no answer is lost."""

import base64
import collections
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from diffpath_jax.evaluation.image_sets import from_folder
from diffpath_jax.reader import answers, key
from diffpath_jax.reader.page import name_of
from tests.reader.folders import SIDE, make

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
PAYLOAD = re.compile(r'<script type="text/plain" class="raw">([^<]*)</script>')


@pytest.fixture(scope="module")
def studies(tmp_path_factory, real, generated) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("studies")
    for question in ("rating", "pairs", "class"):
        words = ("--images", "6", "--readers", "2", "--question", question)
        assert make(folder / question, real, generated, *words) == 0
    return {path.name: path for path in folder.iterdir()}


@pytest.mark.parametrize("question", ["rating", "pairs", "class"])
def test_every_image_is_shown_where_the_key_says(studies, real, generated, question):
    study, sets = key.read(studies[question]), (from_folder(real), from_folder(generated))
    for reader in (1, 2):
        page = (studies[question] / name_of(reader)).read_text()
        shown = iter([np.frombuffer(base64.b64decode(data), np.uint8) for data in PAYLOAD.findall(page)])
        for trial in study.readers[reader - 1]:
            case = study.cases[trial.case]
            images = [
                own.fetch([i])[0] for own, i in zip(sets, (case.real, case.generated), strict=True) if i is not None
            ]
            for image in reversed(images) if trial.swapped else images:
                np.testing.assert_array_equal(next(shown).reshape(SIDE, SIDE, 3), image)
        assert next(shown, None) is None


@pytest.mark.parametrize("question", ["rating", "pairs", "class"])
def test_pages_give_nothing_away(tmp_path, studies, real, generated, question):
    """The page of swapped sets is the same but for the pixels: real and generated ones are treated alike."""
    assert make(tmp_path / "out", generated, real, "--images", "6", "--readers", "2", "--question", question) == 0
    pages = [(folder / name_of(1)).read_text() for folder in (studies[question], tmp_path / "out")]
    names = [key.read(folder).study for folder in (studies[question], tmp_path / "out")]
    assert len({len(data) for page in pages for data in PAYLOAD.findall(page)}) == 1
    plain = [PAYLOAD.sub("", page).replace(name, "") for page, name in zip(pages, names, strict=True)]
    assert plain[0] == plain[1]


def test_no_page_holds_the_key(studies):
    """Digests, seeds, names of files and directories, and the words that only the key has."""
    study = key.read(studies["rating"])
    for path in sorted(studies["rating"].glob("*.*")):
        text = PAYLOAD.sub("", path.read_text())
        assert not [
            word for word in (study.real.digest, study.generated.digest, "swapped", "mktemp", "seed") if word in text
        ]
        assert path.suffix in (".html", ".json", ".lock", "")
    assert [path.name for path in (studies["rating"] / key.FOLDER).iterdir()] == [f"key_{study.study}.json"]


def test_readers_have_orders_of_their_own_over_the_same_cases(studies):
    for question in studies:
        study = key.read(studies[question])
        orders = [[trial.case for trial in trials] for trials in study.readers]
        assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == list(range(len(study.cases)))
        labels = collections.Counter((case.label, case.real is None, case.generated is None) for case in study.cases)
        assert set(labels.values()) == {3}
    swapped = [trial.swapped for trial in key.read(studies["pairs"]).readers[0]]
    assert sum(swapped) == 3


def browse(page: Path, script: str, profile: Path, *flags: str) -> dict:
    """Opens a copy of a page in which a script acts for the reader, and returns what that puts on the page.

    Storage belongs to the name of the study, so that the copy goes on where the last one stopped.
    """
    copy = profile.with_suffix(".html")
    tell = "const tell = (value) => { document.body.dataset.told = JSON.stringify(value); };"
    copy.write_text(page.read_text() + f"<script>{tell} {script}</script>")
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"]
    words += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={profile}", *flags]
    done = subprocess.run([CHROMIUM, *words, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=60)
    told = re.search(r'data-told="([^"]*)"', done.stdout)
    assert told, done.stdout[-500:] + done.stderr[-2000:]
    return json.loads(told[1].replace("&quot;", '"'))


needs_browser = pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
PRESS = """
const click = (id) => document.getElementById(id).click();
const press = (answer) => document.querySelector(`[data-answer="${answer}"]`).click();
const key = (name) => document.dispatchEvent(new KeyboardEvent("keydown", { key: name }));
const wait = (end) => { for (end += performance.now(); performance.now() < end;); };
const state = () => {
  click("finish");
  return [document.getElementById("csv").value, document.getElementById("warning").hidden];
};
"""


@needs_browser
def test_a_reader_clicks_through_and_reloads_in_the_middle(tmp_path, studies):
    """Twelve images: five answers by clicks and keys, one of them changed, another process of the browser, the rest."""
    page, study = studies["rating"] / name_of(2), key.read(studies["rating"])
    first = f"{PRESS} click('begin'); for (const n of [1, 2, 3, 4]) press(n);"
    first += " key('Backspace'); key('7'); key('5'); wait(30); press(1);"
    text, is_stored = browse(page, f"{first} tell(state());", tmp_path / "profile")
    assert is_stored and len(text.splitlines()) == 1 + 5
    rest = f"{PRESS} click('begin'); const at = document.getElementById('count').textContent;"
    rest += " for (let n = 0; n < 7; n++) { wait(5); press(2); }"
    at, is_done, (text, _) = browse(
        page, f"{rest} tell([at, !document.getElementById('done').hidden, state()]);", tmp_path / "profile"
    )
    assert at == "6 of 12" and is_done
    (tmp_path / "answers.csv").write_text(text)
    own = answers.read(tmp_path / "answers.csv", study)
    in_order = [int(own.choices[trial.case]) + 1 for trial in study.readers[1]]
    assert in_order == [1, 2, 3, 5, 1, *[2] * 7]
    assert [line.split(",")[-1] for line in text.splitlines()[1:]] == [*"00010", *"0" * 7]
    assert 0.03 <= own.seconds[study.readers[1][4].case] < 1


@needs_browser
@pytest.mark.full
def test_a_browser_that_keeps_nothing_says_so(tmp_path, studies):
    denied = "<script>Object.defineProperty(window, 'localStorage', { get() { throw new Error('denied'); } });</script>"
    page = tmp_path / "page.html"
    page.write_text((studies["pairs"] / name_of(1)).read_text().replace("<head>", f"<head>{denied}"))
    text, is_stored = browse(page, f"{PRESS} click('begin'); press(1); press(2); tell(state());", tmp_path / "profile")
    assert not is_stored and len(text.splitlines()) == 1 + 2


@needs_browser
@pytest.mark.full
def test_the_canvas_shows_the_pixels(tmp_path, studies):
    """Opaque RGB, as the payload has it."""
    page = studies["class"] / name_of(1)
    script = f"{PRESS} click('begin'); const canvas = document.querySelector('canvas');"
    script += f" tell([...canvas.getContext('2d').getImageData(0, 0, {SIDE}, {SIDE}).data]);"
    shown = np.array(browse(page, script, tmp_path / "profile"), np.uint8).reshape(SIDE, SIDE, 4)
    first = np.frombuffer(base64.b64decode(PAYLOAD.findall(page.read_text())[0]), np.uint8).reshape(SIDE, SIDE, 3)
    np.testing.assert_array_equal(shown[..., :3], first)
    assert (shown[..., 3] == 255).all()
