"""The control plane's side of the router: what it asks there, and how."""
