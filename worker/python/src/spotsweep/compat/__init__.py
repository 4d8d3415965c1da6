"""Modules that stand in front of libraries of the same names, for scripts that import those. This folder goes on the path."""
