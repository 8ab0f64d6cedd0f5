"""Evaluation as the paper did it: tasks, few-shot examples, scores."""
