"""Treadle among others: scikit-learn, Hugging Face, torch.export, ONNX. Imported when asked for."""
