"""Settings of training that a search on development data finds within a budget of time."""
