"""What must hold of the real command whatever its input is."""

import re
import time
from collections.abc import Sequence
from pathlib import Path

from diffpath_jax import cli

# No measure of speed: input that keeps the command busy without end is what must fail, on slow machines too.
CPU_SECONDS = 120
MEMORY_MIB = 1024
# VmHWM is this program's own; ru_maxrss would begin with what the tests themselves held.
MEASURED = """
import re, sys, time
from pathlib import Path
from diffpath_jax import cli
code = cli.main(sys.argv[1:])
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
print(code, peak, int(time.process_time()))
"""
LINE = re.compile(r"error: .+ in .+: .+; fix: .+")


def outcome(capsys, place: Path, words: Sequence[object], out: Path) -> tuple[int, list[str]]:
    """Exit code and error lines of ``diffpath prep``.

    It must end soon, without a traceback, leave nothing but ``out`` in ``place``, and leave a whole data set there
    when it says so, and else nothing.
    """
    before = set(place.rglob("*"))
    start = time.process_time()
    code = cli.main([str(word) for word in ("prep", *words, "--out", out)])
    assert time.process_time() - start < CPU_SECONDS  # of the processor: other jobs may share the machine
    shown = capsys.readouterr()
    check_output(shown.err + shown.out)
    check_files(place, before, out, code)
    return code, error_lines(shown.err)


def check_output(shown: str) -> None:
    """No traceback, and no message of a library's own."""
    assert "Traceback" not in shown, shown
    assert not re.search(r"^(WARNING|ERROR|root):", shown, re.MULTILINE), shown


def check_files(place: Path, before: set[Path], out: Path, code: int) -> None:
    """Nothing is written beside the output, and no half data set is left."""
    new = {path for path in set(place.rglob("*")) - before if not path.is_relative_to(out)}
    assert not new, new
    assert out.exists() == (out / "manifest.json").exists() == (code in (0, 3))


def error_lines(shown: str) -> list[str]:
    """Lines that say what is wrong; each is whole and not too long to be read."""
    lines = [line for line in shown.splitlines() if line.startswith("error")]
    for line in lines:
        assert LINE.fullmatch(line) and len(line) < 1500, line
    return lines
