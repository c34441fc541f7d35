"""Latents: the autoencoder, the latent cache of `sitkit encode`, and the formats of LightningDiT and EDM2."""
