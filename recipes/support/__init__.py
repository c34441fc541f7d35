"""Helpers that every other part uses: errors, progress, random streams, validated records."""
