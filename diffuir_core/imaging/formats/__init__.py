"""The formats: which one a file is in, and the reading and writing of those that Pillow does not do by itself."""
