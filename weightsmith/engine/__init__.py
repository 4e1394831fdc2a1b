"""Run a plan: read, rule, write, verify, publish."""
