"""What goes over the wire: message bodies, topics and subjects, headers, inference tensors, each declared once."""
