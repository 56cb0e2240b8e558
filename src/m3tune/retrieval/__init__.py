"""Vectors and rankings: the inference loop, exact search, BM25."""
