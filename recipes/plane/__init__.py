"""2D demos."""
