"""Features for models: exact statistics, the preprocessor, the feature table, drift."""
