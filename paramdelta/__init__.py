"""Deltas of language models: the arithmetic, the codecs and the artifact format.

This package is pure: it knows no SQL, no network and no command line.
"""

__version__ = "0.1.0"
