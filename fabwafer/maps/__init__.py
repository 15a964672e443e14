"""Wafer maps, grids of dies: read from drawings, counted, scaled, rendered, synthesised."""
