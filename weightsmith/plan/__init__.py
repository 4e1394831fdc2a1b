"""Decide, as frozen values, what a run will write; nothing here reads a tensor."""
