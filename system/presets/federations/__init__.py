"""Presets of federations."""
