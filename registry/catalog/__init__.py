"""The SQL index over releases."""

from registry.catalog.catalog import Catalog
from registry.catalog.migrate import HEAD
from registry.records import SealedRelease

__all__ = ["HEAD", "Catalog", "SealedRelease"]
