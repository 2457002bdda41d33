"""Profiles of training steps, as TensorBoard and XProf open them."""

from pathlib import Path

import jax

from diffpath_jax.training.clu_without_tensorflow import periodic_actions

# Steps that a profile shows: enough to tell the usual from the odd one, few enough for a viewer.
PROFILED_STEPS = 5


class StepProfile(periodic_actions.Profile):
    """Profiles the ``PROFILED_STEPS`` steps that follow a step, into ``plugins/profile/`` of a directory.

    Called after every step, as every periodic action.

    Args:
        directory: log directory of TensorBoard.
        after: the step; 0 for no profile.
    """

    def __init__(self, directory: Path, *, after: int) -> None:
        super().__init__(
            logdir=directory,
            num_profile_steps=PROFILED_STEPS,
            profile_duration_ms=None,
            first_profile=after,
            every_secs=None,
        )

    def close(self) -> None:
        """End a profile that the end of the run cuts short."""
        if self._session_running:
            self._end_session(jax.profiler.stop_trace())
