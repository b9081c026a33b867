"""Threads of the codecs that take a number of them."""

import os

CODEC_THREADS = min(4, os.cpu_count() or 1)
"""Threads that decode or encode one photo: more help little, and many photos are under way at once."""
