"""Transformers: increasing functions of one coordinate whose parameters a conditioner gives."""
