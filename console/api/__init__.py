"""The HTTP API: routes, who may use them, and the documents that travel."""
