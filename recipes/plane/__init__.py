"""Demos in the plane."""
