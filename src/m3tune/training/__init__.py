"""Batches by id, losses of scores, and the Trainer around them."""
