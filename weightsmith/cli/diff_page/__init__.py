"""The page of ``weightsmith diff --html``: one file that needs no other and asks nobody."""
