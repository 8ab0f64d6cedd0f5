"""Runs drawn: one HTML file of curves, samples, settings and data, from one run folder or from several side by side."""

from gpt3.report.page import write_report

__all__ = ["write_report"]
