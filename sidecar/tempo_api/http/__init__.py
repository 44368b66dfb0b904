"""HTTP plumbing that the router and the sidecar share."""
