"""Measures of a real federation beside its peers, in the same run on the same machine."""
