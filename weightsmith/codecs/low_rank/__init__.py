"""A tensor that is its base plus a product of two thin matrices: predict it, and find the two."""
