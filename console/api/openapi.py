"""The OpenAPI 3.1 document: what FastAPI knows of the routes, with problems told as they are."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from taskmill.console.api.access import ANY
from taskmill.console.api.problems import MEDIA_TYPE
from taskmill.console.api.routes import Route

_SECURITY = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "`taskmill tokens create --scope …`. Scopes: enqueue, read, operate, admin.",
    }
}
_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI, routes: list[Route]) -> bytes:
    """The document, as JSON."""
    document = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SECURITY
    schemas = components.setdefault("schemas", {})
    bodies = [(route.body, "validation") for route in routes if route.body is not None]
    _, found = models_json_schema(bodies, ref_template=_REFERENCE)  # type: ignore[arg-type]
    for name, schema in found.get("$defs", {}).items():
        schemas.setdefault(name, schema)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            _mend(operation)
    return json.dumps(document).encode()


def _mend(operation: dict[str, Any]) -> None:
    scope = operation.pop("x-scope")
    needs = "any token" if scope == ANY else f"a token of scope `{scope}`"
    operation["description"] = f"{operation.get('description', '')}\n\nFor {needs}."
    operation["operationId"] = operation["operationId"].replace("_api_v1", "")
    for status, response in operation["responses"].items():
        content = response.get("content", {})
        if status >= "400" and "application/json" in content:
            schema = content.pop("application/json")["schema"]
            if "HTTPValidationError" in json.dumps(schema):
                schema = {"$ref": "#/components/schemas/Problem"}
            content[MEDIA_TYPE] = {"schema": schema}
            headers = response.setdefault("headers", {})
            if status == "401":
                headers["WWW-Authenticate"] = {"schema": {"type": "string"}}
            elif status == "503":
                headers["Retry-After"] = {"schema": {"type": "integer"}}
