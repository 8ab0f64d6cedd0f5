"""The commands ``gpt3 bench ...``: speed, compared with peers in the same run on the same machine."""
