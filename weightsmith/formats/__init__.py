"""Bytes to headers and back, with the standard library only. Nothing here knows a directory."""
