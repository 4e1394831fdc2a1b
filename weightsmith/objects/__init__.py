"""Models in object stores (S3, Google Cloud Storage, Azure), read in ranges; the only importer of
obstore.
"""
