"""The network of a recipe: building, precision and compilation, EMA weights, conversion of released weights."""
