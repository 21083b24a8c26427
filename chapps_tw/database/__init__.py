"""The policy book in an SQL database: SQLite, PostgreSQL or MariaDB, through SQLAlchemy."""
