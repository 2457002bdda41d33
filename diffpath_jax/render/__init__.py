"""Sheets of images, figures and HTML pages."""
