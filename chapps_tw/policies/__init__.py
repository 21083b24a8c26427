"""The policies: one file, one class, one question each.

A policy is a class with a ``name``, a coroutine ``decide`` that answers a request, and a coroutine
``explain`` that answers the same and changes nothing. Its declaration is ``SPEC``.
"""

# How long it is remembered that a user is not there, or has no quota; seconds. Short, since users are also made in the
# database directly.
UNKNOWN_TTL = 60.0
