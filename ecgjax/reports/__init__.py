"""Floor 3: Results files in; tables, figures and one HTML page out."""
