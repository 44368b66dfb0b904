"""What goes over the wire: manifests, header and metadata names, OpenAI's shapes.

Under `tempo_api.http`, the only part that imports aiohttp, is the plumbing that the router and the sidecar share.
"""
