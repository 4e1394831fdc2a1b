"""The library: for every command ``plan_<verb>`` makes a plan and ``<verb>`` carries it out."""
