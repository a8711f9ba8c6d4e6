"""The version, alone in a file that loads nothing (the build reads it)."""

__version__ = "0.1.0"
