"""The protocol as an explicit-state model: every order of events within bounds (ADR-0009)."""
