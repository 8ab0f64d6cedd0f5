"""Speed, measured: whole training steps of this package beside those of its peers, in one run on one machine."""
