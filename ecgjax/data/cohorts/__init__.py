"""Cohorts: subjects, their recordings, labels and identifiers."""
