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
        """What `kubectl get` shows: a dict by column for each object. Only a real API server makes tables."""
        headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        async with self._session.get(kind.path(namespace), headers=headers) as answer:
            found = await answer.json()
        names = [column["name"] for column in found["columnDefinitions"]]
        return [dict(zip(names, row["cells"], strict=True)) for row in found["rows"]]

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
        """Why the API refuses to create the object; empty, if it does not."""
        path = kind.path(document["metadata"].get("namespace"))
        async with self._session.post(path, json=document, params={"dryRun": "All"}) as answer:
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
