"""The revisions of the policy book's schema.

Oldest first: ce81767cec26, 0b5ef72836bd, 7c1d5b0e94fa, b3d90c4e71a8, e4a7c2d9b610, a93c5d1e7f02, d1f4b86a2c95,
5e0f92c7d1b4.
"""
