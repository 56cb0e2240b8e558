"""Negatives that are negative: candidates, filters, sampling, and a person's word on the doubtful ones."""
