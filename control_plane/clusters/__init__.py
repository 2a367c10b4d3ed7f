"""Registrations and scheduling states of clusters; their truth is in SQL, the router has a copy."""
