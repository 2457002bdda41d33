"""``tensorboardX``, loaded without PyTorch.

It loads PyTorch where that is installed, for kinds of arguments that this project does not pass: three seconds of every
command that opens a run. A name that imports to nothing stands in for it meanwhile.
"""

import sys

_TORCH = "torch"
# A program that has loaded PyTorch before keeps it.
_loaded = _TORCH in sys.modules
if not _loaded:
    sys.modules[_TORCH] = None  # type: ignore[assignment]
try:
    import tensorboardX
finally:
    if not _loaded:
        del sys.modules[_TORCH]

__all__ = ["tensorboardX"]
