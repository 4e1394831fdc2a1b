"""Known faults of tokenizer and config files: found, mended and proved.

Everything here is a function of file contents by name; `ops` reads and writes the files.
"""
