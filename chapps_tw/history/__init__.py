"""The history of decisions: written by a thread in batches, searched by others."""
