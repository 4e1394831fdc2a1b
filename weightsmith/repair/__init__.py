"""Find known faults of tokenizer and config files, mend them, and prove the result.

Everything here works on file contents by name; `ops` reads and writes the files.
"""
