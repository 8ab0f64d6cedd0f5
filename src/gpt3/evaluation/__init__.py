"""Evaluation as the paper did it: zero-, one- and few-shot tasks, generated or read from files."""
