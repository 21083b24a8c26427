"""Notices: mail to users and the administrator, and a webhook. They wait in an outbox until they were taken."""
