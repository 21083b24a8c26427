"""The policies: one file and one class each.

A policy is a class with a ``name``, a coroutine ``decide`` that decides about a request, and a coroutine
``explain`` that returns the same decision and changes nothing. Its declaration is ``SPEC``.
"""

# Seconds that an unknown user, or a user without a quota, is cached. Short, because users may also be created directly
# in the database.
UNKNOWN_TTL = 60.0
