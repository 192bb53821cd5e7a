# SPDX-License-Identifier: Apache-2.0
"""Attempts through the registry's interfaces: aliases, stages, names, tags and what else can be written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.bypass.attempts import Attempt, as_reply
from tests.bypass.world import API, MODEL, World
from tests.registry_server import Reply

__all__ = ["REGISTRY"]

AJAX = "/ajax-api/2.0/mlflow"
REST, UI, CLIENT = "REST", "REST, as the user interface", "Python client"


def _alias(alias: str, version: str = "2", **how: Any) -> Callable[[World], Reply]:
    return lambda world: world.alias(MODEL, version, alias, **how)


def _client(call: Callable[[Any], Any]) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        with world.server.client("author") as client:
            return as_reply(lambda: call(client))

    return act


def _post(path: str, body: Any, **how: Any) -> Callable[[World], Reply]:
    return lambda world: world.post(path, body, **how)


def _send(method: str, path: str, body: Any = None, **how: Any) -> Callable[[World], Reply]:
    return lambda world: world.server.call(method, path, body, **({"user": "author"} | how))


def _stage(stage: str, version: str = "2", **more: Any) -> dict[str, Any]:
    return {"name": MODEL, "version": version, "stage": stage, **more}


def _twice_the_key(world: World) -> Reply:
    body = f'{{"name":"{MODEL}","version":"2","alias":"challenger","alias":"production"}}'.encode()
    headers = {"Content-Type": "application/json"}
    return world.server.call("POST", f"{API}/registered-models/alias", body, user="author", headers=headers)


def _rename_onto(world: World) -> Reply:
    """Make way under the name in production, then take it."""
    world.post("registered-models/rename", {"name": MODEL, "new_name": world.fresh("away")})
    name = world.fresh("usurper")
    world.unproven(name)
    return world.post("registered-models/rename", {"name": name, "new_name": MODEL})


def _copy_then_promote(world: World) -> Reply:
    name = world.fresh("copied")
    with world.server.client("author") as client:
        copied = client.copy_model_version(f"models:/{MODEL}/2", name)
        return as_reply(lambda: client.set_registered_model_alias(name, "production", copied.version))


def _copy_of_production(world: World) -> Reply:
    name = world.fresh("copied")
    with world.server.client("author") as client:
        copied = client.copy_model_version(f"models:/{MODEL}@production", name)
        return as_reply(lambda: client.set_registered_model_alias(name, "champion", copied.version))


def _delete_and_recreate(world: World) -> Reply:
    """What was proven and approved under a name does not count for what comes after it under that name."""
    name = world.fresh("recreated")
    version = world.governed(name, world.project)
    bundle = world.project.bundle
    assert world.approve(name, version, world.approval(bundle, name, version)).status == 200
    deleted = world.server.call("DELETE", f"{API}/registered-models/delete", {"name": name}, user="author")
    assert deleted.status == 200, deleted.reason
    assert world.unproven(name) == version
    return world.alias(name, version)


def _delete_version_and_recreate(world: World) -> Reply:
    name = world.fresh("redone")
    version = world.governed(name, world.project)
    assert world.approve(name, version, world.approval(world.project.bundle, name, version)).status == 200
    body = {"name": name, "version": version}
    deleted = world.server.call("DELETE", f"{API}/model-versions/delete", body, user="author")
    assert deleted.status == 200, deleted.reason
    world.unproven(name)
    return world.alias(name, version)


def _version_tag(key: str, value: str = "x", version: str = "2") -> Callable[[World], Reply]:
    return _post("model-versions/set-tag", {"name": MODEL, "version": version, "key": key, "value": value})


def _tagged_model(world: World) -> Reply:
    tags = [{"key": "leangate.policy.0000000000000000", "value": "approved until 9999-12-31"}]
    return world.post("registered-models/create", {"name": world.fresh("tagged"), "tags": tags})


def _prompt(world: World) -> Reply:
    """Prompts live among the registered models; being one is no way around."""
    name = world.fresh("prompt")
    world.post(
        "registered-models/create",
        {"name": name, "tags": [{"key": "mlflow.prompt.is_prompt", "value": "true"}]},
    )
    tags = [{"key": "mlflow.prompt.is_prompt", "value": "true"}, {"key": "mlflow.prompt.text", "value": "hi"}]
    made = world.post("model-versions/create", {"name": name, "source": "prompt-template", "tags": tags})
    assert made.status == 200, made.reason
    with world.server.client("author") as client:
        return as_reply(lambda: client.set_prompt_alias(name, "production", 1))


def _turned_into_prompt(world: World) -> Reply:
    name = world.fresh("turned")
    version = world.unproven(name)
    world.post("registered-models/set-tag", {"name": name, "key": "mlflow.prompt.is_prompt", "value": "true"})
    return world.alias(name, version)


def _graphql(query: str) -> Callable[[World], Reply]:
    return _send("POST", "/graphql", {"query": query, "operationName": None})


def _logged_model(method: str, path: str, body: Any = None) -> Callable[[World], Reply]:
    def act(world: World) -> Reply:
        model_id = next(part for part in world.home.parts if part.startswith("m-"))
        return world.server.call(method, f"{API}/logged-models/{model_id}{path}", body, user="author")

    return act


def _run_batch(world: World) -> Reply:
    run = world.proof_home.parts[-3]
    tags = [{"key": "leangate.decision", "value": "passed"}, {"key": "leangate.approve", "value": "{}"}]
    world.post("runs/log-batch", {"run_id": run, "tags": tags, "metrics": [], "params": []})
    return world.alias(MODEL, "3")


def _racing(world: World) -> Reply:
    """Of two at once, the one that may goes through, and the one that may not does not, whoever comes first."""
    name = world.fresh("raced")
    version = world.governed(name, world.project)
    bad = world.unproven(name)
    assert world.approve(name, version, world.approval(world.project.bundle, name, version)).status == 200
    replies: dict[int, Reply] = {}

    def promote(number: int) -> None:
        replies[number] = world.alias(name, bad if number % 2 else version)

    threads = [threading.Thread(target=promote, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.expected[name, "production"] = version
    assert {replies[number].status for number in (0, 2, 4, 6)} == {200}, [r.reason for r in replies.values()]
    assert {replies[number].status for number in (1, 3, 5, 7)} == {403}, [r.reason for r in replies.values()]
    return replies[1]


def _swapped_in_database(world: World) -> Reply:
    """Whoever writes to the database has the alias; whoever asks for it is told."""
    world.query(
        "UPDATE registered_model_aliases SET version = 3 WHERE name = :m AND alias = 'production'", m=MODEL
    )
    try:
        return world.resolve()
    finally:
        world.query(
            "UPDATE registered_model_aliases SET version = 1 WHERE name = :m AND alias = 'production'",
            m=MODEL,
        )


def _inserted_in_database(world: World) -> Reply:
    world.query(
        "INSERT INTO registered_model_aliases (workspace, name, alias, version) VALUES ('default', :m, 'champion', 3)",
        m=MODEL,
    )
    try:
        return world.resolve(alias="champion")
    finally:
        world.query("DELETE FROM registered_model_aliases WHERE name = :m AND alias = 'champion'", m=MODEL)


def _webhook(world: World) -> Reply:
    """A webhook hears of things after they happened; one that posts to this very server gains nothing."""
    return world.post(
        "webhooks",
        {
            "name": world.fresh("hook"),
            "url": f"{world.server.uri}{API}/registered-models/alias",
            "events": [{"entity": "MODEL_VERSION", "action": "CREATED"}],
        },
    )


_MUTATION = (
    f'mutation {{ setRegisteredModelAlias(name: "{MODEL}", alias: "production", version: "3") {{ name }} }}'
)
_PREFIXED = (
    "leangate.approved.0000000000000000",
    "LEANGATE.approved.x",
    " leangate.revoked",
    "\uff4ceangate.x",
)
_ALIASES = (
    ("Production", "in another case"),
    ("PRODUCTION", "in capitals"),
    (" production", "with a blank before it"),
    ("production ", "with a blank after it"),
    ("\uff50roduction", "with a full-width letter"),
    ("\u0440roduction", "with a Cyrillic letter"),
    ("production\u200b", "with an invisible character"),
    ("\u2119roduction", "with a mathematical letter"),
    ("champ\u0131on", "with a letter that looks like one"),
)

REGISTRY: tuple[Attempt, ...] = (
    Attempt("production to a proven version nobody approved", REST, _alias("production"), quick=True),
    Attempt("production to a version without evidence", REST, _alias("production", "3"), quick=True),
    Attempt("the same", UI, _alias("production", "3", root=AJAX)),
    Attempt("the same, as the server's administrator", REST, _alias("production", "3", user="admin")),
    Attempt(
        "the same",
        CLIENT,
        _client(lambda client: client.set_registered_model_alias(MODEL, "production", "3")),
    ),
    Attempt("the other protected alias", REST, _alias("champion", "3"), quick=True),
    *(Attempt(f"the alias {words}", REST, _alias(alias, "3"), quick=True) for alias, words in _ALIASES),
    Attempt("the alias twice in one request", REST, _twice_the_key),
    *(
        Attempt(f"production to version {version!r}", REST, _alias("production", version), entry=False)
        for version in ("03", " 3", "3.0", "\uff13", "-1", "latest")
    ),
    Attempt("the alias by PUT", REST, _send("PUT", f"{API}/registered-models/alias", {}), entry=False),
    Attempt(
        "the alias below an address that ends in a slash",
        REST,
        _send(
            "POST", f"{API}/registered-models/alias/", {"name": MODEL, "alias": "production", "version": "3"}
        ),
        entry=False,
    ),
    Attempt(
        "the alias without a name and password",
        REST,
        _send(
            "POST",
            f"{API}/registered-models/alias",
            {"name": MODEL, "alias": "production", "version": "3"},
            anonymous=True,
        ),
        entry=False,
    ),
    Attempt(
        "the stage Production",
        REST,
        _post("model-versions/transition-stage", _stage("Production")),
        quick=True,
    ),
    Attempt(
        "the stage, archiving what is there",
        REST,
        _post("model-versions/transition-stage", _stage("production", archive_existing_versions=True)),
    ),
    Attempt(
        "the stage, in camelCase",
        UI,
        _post(
            "model-versions/transition-stage", _stage("PRODUCTION", archiveExistingVersions=True), root=AJAX
        ),
    ),
    Attempt(
        "the stage with a blank",
        REST,
        _post("model-versions/transition-stage", _stage("Production ")),
    ),
    Attempt(
        "the stage",
        CLIENT,
        _client(lambda client: client.transition_model_version_stage(MODEL, "3", "Production", True)),
    ),
    Attempt(
        "rename what is in production",
        REST,
        _post("registered-models/rename", {"name": MODEL, "new_name": "away"}),
        quick=True,
    ),
    Attempt("take the name of what is in production", REST, _rename_onto),
    Attempt("copy a proven version, promote the copy", CLIENT, _copy_then_promote),
    Attempt("copy what is in production, promote the copy", CLIENT, _copy_of_production),
    Attempt("delete the model, make it anew, use its approval", REST, _delete_and_recreate),
    Attempt(
        "delete the version, make another, use its approval", REST, _delete_version_and_recreate, entry=False
    ),
    Attempt(
        "delete the alias",
        REST,
        _send("DELETE", f"{API}/registered-models/alias", {"name": MODEL, "alias": "production"}),
        quick=True,
    ),
    Attempt(
        "delete the version in production",
        REST,
        _send("DELETE", f"{API}/model-versions/delete", {"name": MODEL, "version": "1"}),
        quick=True,
    ),
    Attempt(
        "delete the model in production",
        CLIENT,
        _client(lambda client: client.delete_registered_model(MODEL)),
    ),
    *(Attempt(f"forge the version's tag {key!r}", REST, _version_tag(key)) for key in _PREFIXED),
    Attempt("an approval that is none", REST, _version_tag("leangate.approve", "{}"), quick=True),
    Attempt("an approval of 1 MB", REST, _version_tag("leangate.approve", "x" * 1_000_000)),
    Attempt(
        "a revocation without a reason, of what is in production",
        REST,
        _version_tag("leangate.revoke", " ", "1"),
    ),
    Attempt(
        "forge what was decided",
        CLIENT,
        _client(lambda client: client.set_model_version_tag(MODEL, "3", "leangate.decision", "passed")),
    ),
    Attempt(
        "remove what was decided",
        REST,
        _send(
            "DELETE",
            f"{API}/model-versions/delete-tag",
            {"name": MODEL, "version": "1", "key": "leangate.bundle_sha256"},
        ),
    ),
    Attempt(
        "forge the model's tags",
        REST,
        _post(
            "registered-models/set-tag",
            {"name": MODEL, "key": "leangate.policy.0000000000000000", "value": "approved until 9999-12-31"},
        ),
    ),
    Attempt(
        "remove the model's tags",
        REST,
        _send("DELETE", f"{API}/registered-models/delete-tag", {"name": MODEL, "key": "leangate.policy.x"}),
    ),
    Attempt("a new model with forged tags", REST, _tagged_model),
    Attempt("an alias of a prompt", CLIENT, _prompt),
    Attempt("a model turned into a prompt", REST, _turned_into_prompt),
    Attempt(
        "a mutation", "GraphQL", _graphql(_MUTATION), entry=False, harmless="GraphQL answers errors with 200"
    ),
    Attempt("a batch of forged tags on the run", REST, _run_batch),
    Attempt(
        "forged tags on the logged model",
        REST,
        _logged_model("PATCH", "/tags", {"tags": [{"key": "leangate.revoked", "value": "x"}]}),
        entry=False,
        harmless="what the registry decides by is its ledger",
    ),
    Attempt(
        "delete the logged model in production",
        REST,
        _logged_model("DELETE", ""),
        entry=False,
        harmless="MLflow marks it deleted; its files and the version stay",
    ),
    Attempt("a webhook to the registry itself", REST, _webhook, entry=False),
    Attempt("two promotions at once", REST, _racing, quick=True),
    Attempt("swap the alias in the database, ask for it", "SQL", _swapped_in_database, quick=True),
    Attempt("write the alias into the database, ask for it", "SQL", _inserted_in_database),
)
