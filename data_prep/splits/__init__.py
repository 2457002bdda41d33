"""Splits by patient, or by place on a slide."""
