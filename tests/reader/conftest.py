"""Images of a reader study."""

from pathlib import Path

import pytest

from tests.reader.folders import write_folder


@pytest.fixture(scope="package")
def real(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("real") / "set", grey=100)


@pytest.fixture(scope="package")
def generated(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("generated") / "set", grey=160)
