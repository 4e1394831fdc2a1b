"""What a SOURCE names: where it is, what it is, and how it is opened."""
