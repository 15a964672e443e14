"""All of fabwafer on one machine, without Kubernetes."""
