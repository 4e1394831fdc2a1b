"""The checks of `verify`, and the report that they make."""
