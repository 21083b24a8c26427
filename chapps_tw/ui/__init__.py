"""The page for people, at ``/ui/``: rendered on the server, with the routes of the HTTP API behind it."""
