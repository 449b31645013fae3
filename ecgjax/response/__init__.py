"""The application: what predicts the response to resynchronisation, on top of the parts; contenders, folds, page."""
