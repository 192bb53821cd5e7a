# SPDX-License-Identifier: Apache-2.0
"""Try to call version 1 production with MLflow's own client, past every command of LeanGate."""

import mlflow

try:
    mlflow.MlflowClient().set_registered_model_alias("leangate-digits", "production", "1")
    print("moved")
except mlflow.exceptions.RestException as error:
    print(error.get_http_status_code(), error)
