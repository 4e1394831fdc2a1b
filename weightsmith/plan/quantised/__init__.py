"""How quantised models are laid out, and by which rules their weights become floats again."""
