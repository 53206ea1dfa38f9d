"""The study of Delanois et al. 2023, written against the public API."""
