"""What a user does to a cluster, over HTTP; the same for the test API server and a real one."""

import json

import aiohttp
import kopf

from tempo_operator.kinds import Kind


class Client:
    """Somebody with a kubeconfig, who is not the operator."""

    def __init__(self, info: kopf.ConnectionInfo) -> None:
        self._session = aiohttp.ClientSession(
            base_url=info.server.rstrip("/") + "/",
            headers={**info.as_http_headers(), "User-Agent": "somebody"},
            connector=aiohttp.TCPConnector(ssl=info.as_ssl_context()),
            timeout=aiohttp.ClientTimeout(total=10),
        )

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self._session.close()

    async def table(self, kind: Kind, namespace: str | None) -> list[dict]:
        """What `kubectl get` shows: a dict by column for each object. Only a real API server makes tables.

        Columns that only `-o wide` shows are left out.
        """
        headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        async with self._session.get(kind.path(namespace), headers=headers) as answer:
            found = await answer.json()
        shown = [(n, column["name"]) for n, column in enumerate(found["columnDefinitions"]) if not column["priority"]]
        return [{name: row["cells"][n] for n, name in shown} for row in found["rows"]]

    async def serves(self, kind: Kind) -> bool:
        """Whether the cluster knows this kind."""
        found = await self._ask("GET", kind.root, or_none=True)
        return found is not None and any(resource["name"] == kind.plural for resource in found["resources"])

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict | None:
        return await self._ask("GET", kind.path(namespace, name), or_none=True)

    async def list(self, kind: Kind, namespace: str | None, selector: str = "") -> list[dict]:
        found = await self._ask("GET", kind.path(namespace), params={"labelSelector": selector})
        return found["items"]

    async def create(self, kind: Kind, document: dict) -> dict:
        return await self._ask("POST", kind.path(document["metadata"].get("namespace")), document)

    async def apply(self, kind: Kind, document: dict) -> dict:
        """As `kubectl apply --server-side` does."""
        metadata = document["metadata"]
        path = kind.path(metadata.get("namespace"), metadata["name"])
        params = {"fieldManager": "kubectl", "force": "true"}
        return await self._ask("PATCH", path, document, params, "application/apply-patch+yaml")

    async def patch(self, kind: Kind, namespace: str | None, name: str, change: dict, sub: str | None = None) -> dict:
        path = kind.path(namespace, name, sub)
        return await self._ask("PATCH", path, change, content_type="application/merge-patch+json")

    async def delete(self, kind: Kind, namespace: str | None, name: str) -> None:
        await self._ask("DELETE", kind.path(namespace, name), or_none=True)

    async def refusal(self, kind: Kind, document: dict) -> str:
        """Why the API would refuse to create the object; empty, if it would not."""
        return await self._trial("POST", kind.path(document["metadata"].get("namespace")), document)

    async def refusal_of_change(self, kind: Kind, document: dict) -> str:
        """The same of applying it where `apply` has put another version of it."""
        metadata, manager = document["metadata"], {"fieldManager": "kubectl"}
        path = kind.path(metadata.get("namespace"), metadata["name"])
        return await self._trial("PATCH", path, document, "application/apply-patch+yaml", **manager)

    async def _trial(self, method, path, document, content_type="application/json", **params) -> str:
        params |= {"dryRun": "All", "fieldValidation": "Strict"}
        headers, data = {"Content-Type": content_type}, json.dumps(document)
        async with self._session.request(method, path, data=data, params=params, headers=headers) as answer:
            return "" if answer.status < 400 else (await answer.json())["message"]

    async def _ask(self, method, path, body=None, params=None, content_type="application/json", *, or_none=False):
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type} if data else None
        async with self._session.request(method, path, data=data, params=params, headers=headers) as answer:
            if answer.status == 404 and or_none:
                return None
            text = await answer.text()
            assert answer.status < 400, f"{method} {path}: {answer.status} {text[:2000]}"
            return json.loads(text)
