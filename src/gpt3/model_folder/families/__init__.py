"""The families of checkpoints that can be read, one file per family."""
