"""Real Kubernetes clusters on one Linux machine, and the tests that run against them."""
