"""Annotated regions: a module a format of files, and the classes that are used of them."""
