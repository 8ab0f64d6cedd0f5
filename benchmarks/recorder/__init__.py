"""A recorder of what the package does, seen from outside, so that a change of its inside can be shown to lose nothing."""
