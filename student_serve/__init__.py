"""All that travels with a registered student: numpy, pandas, pyarrow, ONNX Runtime and mlflow-skinny run it."""
