"""Container images as bytes: layers, what names them, archives, and registries."""
