"""The policies: one file, one class, one question each.

A policy is a class with a ``name``, a coroutine ``decide`` that answers a request, and a coroutine
``explain`` that answers the same and changes nothing.
"""
