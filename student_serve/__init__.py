"""All that a pulled student needs to answer: ONNX Runtime, numpy, pandas and pyarrow; it travels with the model."""
