"""The mathematics of diffusion: schedules, timesteps, conditioning."""
