"""Devices: the mesh, and the one table that maps logical axes to it. Knows no model and no text."""
