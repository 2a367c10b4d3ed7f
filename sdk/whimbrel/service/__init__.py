"""The three servers' kit: logs, traces, rpc, health, stopping, crash points. Never imported by a
task or the client."""
