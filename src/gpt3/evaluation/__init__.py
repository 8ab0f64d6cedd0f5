"""Evaluation as the paper did it: tasks, few-shot scores, contamination."""
