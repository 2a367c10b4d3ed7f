"""Immutable versions of workflows, and the code bundles they name."""
