"""Streams between the gateway and the services inside a pod: over the pods' network, or by exec through the API."""
