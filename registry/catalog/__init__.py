"""The SQL index over releases."""

from registry.catalog.catalog import Catalog
from registry.records import SealedRelease

__all__ = ["Catalog", "SealedRelease"]
