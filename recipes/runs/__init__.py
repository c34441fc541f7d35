"""The folder of a run: its recipe, the record of its data, and the check that it can be resumed."""
