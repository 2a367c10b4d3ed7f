"""Keeps the spans of runs, so that a trace can be shown without any other service."""
