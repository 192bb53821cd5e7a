# SPDX-License-Identifier: Apache-2.0
"""Who is logged in, by MLflow's own authentication."""

from __future__ import annotations

import sys

__all__ = ["principal"]


_DEFAULT_CHECK = "mlflow.server.auth:authenticate_request_basic_auth"


def principal() -> str | None:
    """Return the name of who sent the request that is being answered; None if nobody checked who that is.

    A name in a request's header is anybody's claim until MLflow's authentication has looked at the password:
    it counts only where that runs before every request.
    """
    import flask

    auth = sys.modules.get("mlflow.server.auth")
    if auth is None or not flask.has_request_context():
        return None
    before = flask.current_app.before_request_funcs.get(None, [])
    if not any(getattr(function, "__module__", "") == auth.__name__ for function in before):
        return None
    if auth.auth_config.authorization_function == _DEFAULT_CHECK:
        answer = flask.request.authorization  # looked at already; a password is hashed slowly, on purpose
    else:
        answer = auth.authenticate_request()
    name = getattr(answer, "username", None)
    return str(name) if name else None
