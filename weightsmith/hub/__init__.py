"""The hub: find what a source names there, fetch it, keep its cache clean.

The only package that imports huggingface_hub, and only inside functions.
"""
