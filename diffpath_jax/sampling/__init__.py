"""Sets of images drawn from a trained model."""
