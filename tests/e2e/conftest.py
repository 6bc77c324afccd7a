from fixtures import daemon, start_daemon  # noqa: F401
