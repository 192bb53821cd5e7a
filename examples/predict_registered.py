# SPDX-License-Identifier: Apache-2.0
"""Load the registered digits model by its alias and read ten digits; run it in the folder of `dvc.yaml`."""

import mlflow
from sklearn.datasets import load_digits

digits = load_digits()
model = mlflow.pyfunc.load_model("models:/leangate-digits@challenger")
scores = model.predict(digits.images[:10, None].astype("float32"))["scores"]
print("predicted", *scores.argmax(axis=1))
print("truth    ", *digits.target[:10])
