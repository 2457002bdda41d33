"""A trained autoencoder, and data sets made with it."""
