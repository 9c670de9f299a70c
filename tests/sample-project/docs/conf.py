project = "Sample BPM"
extensions = ["sphinx.ext.autodoc"]
