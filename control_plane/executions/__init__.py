"""Runs: launch, place + fence + assign, what a crash left, and how people see them."""
