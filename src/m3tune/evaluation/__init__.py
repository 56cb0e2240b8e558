"""Runs to metrics, metrics to a verdict."""
