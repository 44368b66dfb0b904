"""What goes over the wire: manifests, header and metadata names, OpenAI's shapes, and the HTTP plumbing that the
router and the sidecar share (under `tempo_api.http`, the only part that imports aiohttp).
"""
