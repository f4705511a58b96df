"""The registry: releases of deltas over a store of blobs and a catalog of names."""
