"""The configuration as one frozen tree of dataclasses, and the record of it that a run keeps."""
