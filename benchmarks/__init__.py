"""Speed, memory and correctness, measured: see ``training`` (against PyTorch) and ``accelerator`` (GPU or TPU)."""
