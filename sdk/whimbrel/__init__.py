"""Whimbrel: one global endpoint, many regions, every run arrives once."""
