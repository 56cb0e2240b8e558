"""Files in: every usual format read into one Collection, and split without leaks."""
