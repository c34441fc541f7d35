"""Files on disk: atomic writes, arrays, blocks of rows, checkpoints, and work partitioned over processes by files."""
