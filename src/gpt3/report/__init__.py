"""Runs drawn: one HTML file of curves, samples, settings and data, from one run folder or several."""
