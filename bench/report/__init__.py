"""The failure report: real faults injected, what they cost, and why a violation would be seen."""
