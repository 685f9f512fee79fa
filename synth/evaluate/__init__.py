"""Scores: public ones for the bundle, internal ones for the steward alone."""
