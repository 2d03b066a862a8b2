"""Having the system run a task every night: launchd, systemd."""
