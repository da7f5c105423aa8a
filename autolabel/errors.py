"""The errors autolabel raises on purpose: each names the field, the value and the remedy."""

from __future__ import annotations


class AutolabelError(Exception):
    """Base of every error a user can act on; the command line prints it without a traceback."""


class UsageError(AutolabelError):
    """The call itself is wrong: an unknown option value, an empty prompt, a missing input (exit code 2)."""


class ConfigError(UsageError):
    """A recipe or an ontology is wrong; the message names the field and the value."""


class ImageError(AutolabelError):
    """One image cannot be read; costs a row in the failure ledger, never the run."""


class OutOfMemoryError(ImageError):
    """There was no memory for an image's pixels; there may be some once other images are done."""


class ModelError(AutolabelError):
    """A model cannot be loaded: unknown backend, missing weights or package; the message says how to get it."""


class StoreError(AutolabelError):
    """A run folder is missing, damaged, from another version, or in use by another process."""


class ServerError(AutolabelError):
    """A server cannot be reached, refuses, or is not as it must be; the message says which, why and the remedy."""
