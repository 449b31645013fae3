"""Small cohorts judged by repeated cross-validation: patients, folds, contenders, out-of-fold predictions."""
