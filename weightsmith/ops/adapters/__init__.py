"""Adapters: how they change a base, the labels of their classifiers, and the error they leave."""
