"""Files that others published, known by their digest; and fetching one, when asked to."""

import contextlib
import shutil
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffpath_jax.io.errors import DiffpathError, ExitCode
from diffpath_jax.io.files import sha256_file

_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class PublishedFile:
    """A file on the web.

    Attributes:
        url: where its authors keep it.
        sha256: hex digest of its bytes.
    """

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """Its name there."""
        return self.url.rpartition("/")[2]


def check_digest(path: Path, published: PublishedFile) -> None:
    """Refuse a file that is not the published one.

    Raises:
        DiffpathError: its digest differs (exit code 5), or it does not exist.
    """
    if not path.is_file():
        raise DiffpathError("checkpoint", where=path, why="no such file", fix=f"download {published.url}")
    digest = sha256_file(path)
    if digest != published.sha256:
        why = f"SHA-256 {digest[:12]}... is not that of {published.name}, {published.sha256[:12]}..."
        fix = f"download {published.url} again, or say --unverified"
        raise DiffpathError("checkpoint", where=path, why=why, fix=fix, code=ExitCode.DAMAGED)


@contextlib.contextmanager
def downloaded(published: PublishedFile, *, beside: Path) -> Iterator[Path]:
    """The file, checked, for as long as the block lasts; in a folder of its own next to ``beside``.

    Raises:
        DiffpathError: it cannot be fetched, or what came is something else (exit code 5).
    """
    beside.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside.parent, prefix=".download.") as folder:
        path = Path(folder) / published.name
        try:
            with urllib.request.urlopen(published.url, timeout=_TIMEOUT_SECONDS) as answer, path.open("wb") as file:
                shutil.copyfileobj(answer, file)
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            fix = "download it on a machine with access and give --file"
            raise DiffpathError("download", where=published.url, why=str(reason), fix=fix) from error
        check_digest(path, published)
        yield path
