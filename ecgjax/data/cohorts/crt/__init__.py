"""Patients before cardiac resynchronisation: 12-lead recordings and a table of who responded."""
