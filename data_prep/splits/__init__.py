"""Which split a patient, or a place of a slide, belongs to."""
