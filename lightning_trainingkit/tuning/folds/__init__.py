"""Cross-validation and ensemble members: trials of one configuration on several folds or seeds."""
