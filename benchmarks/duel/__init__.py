"""Ours against guided-diffusion: which gets nearer to held-out real patches in the same seconds of the same core?"""
