"""Names that come from outside: of a received data set, a run, the command line."""

import pytest

from diffpath_jax.io.names import MAX_BYTES, check_names


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "..", ".hidden", "a.", "a ", "../../x", "/abs/x", "a/b", "a\\b", "C:x", "a\nb", "a\x00b",
        "a\x1bb", "a\u202eb", "a\u200bb",
        "CON", "nul.txt", "com1", "a" * (MAX_BYTES + 1), "é" * (MAX_BYTES // 2 + 1), "\ud800",
    ],
)  # fmt: skip
def test_refused(name):
    with pytest.raises(ValueError, match="is no name"):
        check_names("good", name)


@pytest.mark.parametrize(
    "name", ["tumour", "LP Stroma", "Übergang", "肿瘤", "grade-3+4", "a.b", "a" * MAX_BYTES, "confirmed"]
)
def test_allowed(name):
    check_names(name)
