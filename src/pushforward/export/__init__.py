"""Guards in the formats of other systems: MLflow models (extra `mlflow`)."""
