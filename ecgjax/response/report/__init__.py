"""The report of a response to treatment: contenders cross-validated on the same patients, judged side by side."""
