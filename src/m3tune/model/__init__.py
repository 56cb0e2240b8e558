"""Hugging Face encoders on packed rows, and the settings that travel with the weights."""
