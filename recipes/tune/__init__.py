"""`sitkit tune`: the choice of a sampler for a trained run."""
