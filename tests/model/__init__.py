"""An explicit-state model of the protocol: every order of events within bounds, checked (ADR-0009)."""
