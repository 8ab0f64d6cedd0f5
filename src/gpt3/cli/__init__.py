"""The command line: one file per command, with its options; heavy imports happen inside `run`."""
