"""Durable stories that move executions between clusters."""
