"""``clu``'s metric writers and periodic actions, loaded without TensorFlow.

TensorFlow is none of ``clu``'s requirements, yet ``clu.metric_writers`` imports its TensorFlow writer as soon as it is
imported, and so do all modules in it (``interface`` too) and ``clu.periodic_actions``. An empty module stands in for
that writer, which nothing here uses: TensorFlow is not installed with this project, and where it is, it would take
seconds and the memory of a GPU.
"""

import sys
import types

_TENSORFLOW_WRITER = "clu.metric_writers.summary_writer"
_stand_in = types.ModuleType(_TENSORFLOW_WRITER)
_stand_in.SummaryWriter = None  # type: ignore[attr-defined]
# A program that has loaded the true one before keeps it.
sys.modules.setdefault(_TENSORFLOW_WRITER, _stand_in)

from clu import metric_writers, periodic_actions  # noqa: E402

__all__ = ["metric_writers", "periodic_actions"]
