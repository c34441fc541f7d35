"""Latents to train on: the autoencoder, the cache of `sitkit encode`, and the formats of LightningDiT and EDM2."""
