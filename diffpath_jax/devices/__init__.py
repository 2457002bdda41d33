"""Devices, processes and their speed."""
