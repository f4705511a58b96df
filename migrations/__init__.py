"""Alembic migrations of the catalog. Shipped with the package and run by it."""
