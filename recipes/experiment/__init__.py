"""The recipe: its keys, the components that it names, presets, TOML files and overrides."""
